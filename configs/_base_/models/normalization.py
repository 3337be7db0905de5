# Images in RGB, less the mean and over the standard deviation of ImageNet, as the published weights expect them.
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
)
