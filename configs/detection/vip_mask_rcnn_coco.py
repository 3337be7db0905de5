# The default of ViP.
_base_ = './vip_s7_mask_rcnn_1x_coco.py'
