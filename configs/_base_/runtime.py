# Everything around model, data and schedule that the tasks share.
_base_ = './exact_training.py'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    **_base_.exact_hooks,
    balance=dict(type='mlp_dense.BalanceHook'),
    console=dict(type='mlp_dense.ConsoleHook'),
)
custom_hooks = []
env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)
vis_backends = [dict(type='LocalVisBackend')]
log_processor = dict(type='mlp_dense.TimedLog', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
