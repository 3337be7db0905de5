# The small UperNet on the generated data with AS-MLP.
_base_ = './hire_mlp_upernet_shapes.py'
model = dict(backbone=dict(type='mlp_dense.ASMLP'))
