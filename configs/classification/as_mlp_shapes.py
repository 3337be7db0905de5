# The small classifier on the generated data with AS-MLP.
_base_ = './hire_mlp_shapes.py'
model = dict(backbone=dict(type='mlp_dense.ASMLP'))
