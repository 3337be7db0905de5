# The default of MLP-Mixer.
_base_ = './mlp_mixer_s16_mask_rcnn_1x_coco.py'
