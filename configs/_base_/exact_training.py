# Exact resume, atomic checkpoints, checks for NaN and infinity: for any training of mmengine, mmdet, mmsegmentation
#     _base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
#               __import__('mlp_dense').config_path('_base_/exact_training.py')]
#     train_cfg = _base_.exact_epochs  # exact_iters if the training counts iterations
#     default_hooks = _base_.exact_hooks
runner_type = 'mlp_dense.DenseRunner'
exact_epochs = dict(type='mlp_dense.EpochLoop')
exact_iters = dict(type='mlp_dense.IterLoop')
exact_order = dict(  # of the training data; both loops read it
    dataset='mlp_dense.SeededDataset', batch_sampler='mlp_dense.SeededBatches', worker_init='mlp_dense.leave_signals'
)
exact_hooks = dict(
    checkpoint=dict(type='mlp_dense.CheckpointHook'),
    finite_loss=dict(type='mlp_dense.FiniteLossHook'),
    run_info=dict(type='mlp_dense.RunHook'),
    data_check=dict(type='mlp_dense.DataCheckHook'),
    skipping=dict(type='mlp_dense.SkippingHook'),
    resume=dict(type='mlp_dense.ResumeHook'),
)
