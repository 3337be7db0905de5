_base_ = './runtime.py'
default_scope = 'mlp_dense'
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3, save_best='accuracy/top1', rule='greater'),
)
env_cfg = dict(cudnn_benchmark=True)
visualizer = dict(type='Visualizer', vis_backends=_base_.vis_backends, name='visualizer')
