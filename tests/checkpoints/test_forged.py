"""Objects in files that forge pointers, declare too many bytes or replace methods are refused or made harmless."""

import importlib
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mlp_dense.checkpoints.reading import Checkpoint, read_checkpoint
from mlp_dense.checkpoints.writing import publish
from mlp_dense.errors import CheckpointError
from support.checkpoints import Call

multiarray = importlib.import_module(np.ndarray.__reduce__(np.zeros(1))[0].__module__)
LEGACY_AND_ZIP = pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
FORGED = {
    'an array of objects': Call(np.ndarray, (3,), 'O', b'A' * 24),
    'an array that is constructed': Call(np.ndarray, (2, 2), 'f8'),
    'an array of more than its bytes': Call(
        multiarray._reconstruct, np.ndarray, (0,), b'b', state=(1, (2**40,), np.dtype('f4'), False, b'abcd')
    ),
    'an array of objects by its state': Call(
        multiarray._reconstruct, np.ndarray, (0,), b'b', state=(1, (3,), np.dtype('O'), False, [1, 2, 3])
    ),
    'another array type': Call(multiarray._reconstruct, np.matrix, (0,), b'b'),
    'a long type': Call(np.dtype, 'V999999999'),
    'a type of objects': Call(np.dtype, 'O'),
    'a structured type': Call(np.dtype, [('a', 'O')]),
    'a type with an invented state': Call(
        np.dtype, 'f8', False, True, state=(3, '|', (np.dtype('f8'), (2**30,)), None, None, -1, -1, 0)
    ),
    'a scalar of too few bytes': Call(multiarray.scalar, np.dtype('f8'), b'ab'),
    'a scalar of an object': Call(multiarray.scalar, np.dtype('O'), b'A' * 8),
}


@pytest.mark.parametrize('name', FORGED)
@LEGACY_AND_ZIP
def test_forged_numpy_objects_are_refused(save, name, zipped):
    """They replace the palette of the classes, whose first use could be a segmentation fault."""
    meta = dict(dataset_meta=dict(classes=('a',), palette=FORGED[name]))
    path = save(dict(state_dict={}, meta=meta), 'forged.pth', _use_new_zipfile_serialization=zipped)
    refused = r'forged\.pth is refused, since loading it could run code: it holds numpy'
    with pytest.raises(CheckpointError, match=refused):
        read_checkpoint(path)


def test_genuine_numpy_objects_are_unchanged(save):
    arrays = [np.arange(6).reshape(2, 3).astype(dtype) for dtype in ('?', 'i4', 'i8', 'u1', 'f4', 'f8')]
    arrays += [np.asfortranarray(arrays[-1]), np.empty((0, 3), 'f4'), np.array(2.5)]
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 1])
    content = dict(arrays=arrays, scalar=np.float64(0.1), history=history, state_dict={})
    for _ in range(2):  # the second time the objects that were read are written
        content = read_checkpoint(save(content, 'plain.pth'))
    for array, read in zip(arrays, content['arrays'], strict=True):
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    assert content['scalar'] == 0.1 and content['history'].mean() == history.mean()
    assert type(torch.load(save(content, 'again.pth'), weights_only=False)['arrays'][0]) is np.ndarray


UTILS = torch._utils
BEYOND_TENSORS = {
    'a tensor without values': Call(torch.Tensor, 2**14, 2**14),
    'bytes': Call(bytearray, 2**30),
    'a nested tensor': Call(
        UTILS._rebuild_nested_tensor, torch.ones(1), torch.tensor([[10**9]]), torch.tensor([[1]]), torch.tensor([0])
    ),
    'indices outside': Call(
        UTILS._rebuild_sparse_tensor, torch.sparse_coo, (torch.tensor([[10**12]]), torch.ones(1), (3,), True)
    ),
    'a quantized tensor': Call(UTILS._rebuild_qtensor, None, 0, (2**40,), (1,), (), False, None),
}


@pytest.mark.parametrize('name', BEYOND_TENSORS)
@LEGACY_AND_ZIP
def test_objects_that_only_pytorch_allows_are_refused(save, name, zipped):
    """They would reserve more memory than the file has, or read outside of their storage."""
    content = dict(state_dict=dict(w=torch.ones(1)), optimizer=[BEYOND_TENSORS[name]])
    path = save(content, 'beyond.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r'beyond\.pth is refused, .* it holds (torch|builtins|__builtin__)\.'):
        read_checkpoint(path)


@LEGACY_AND_ZIP
def test_attributes_in_a_file_do_not_replace_methods(save, zipped):
    attributes = dict(items=5, get=5, _metadata={'': dict(version=2)})
    weights = Call(OrderedDict, [['w', torch.ones(2)]], state=attributes)
    hooks, tensor = OrderedDict({0: OrderedDict}), torch.ones(2)
    parameter = Call(UTILS._rebuild_parameter_with_state, tensor, False, hooks, dict(isfinite=5, is_complex=5, numel=5))
    content = dict(state_dict=weights, model=dict(parameter=parameter))
    path = save(content, 'attributes.pth', _use_new_zipfile_serialization=zipped)
    checkpoint = Checkpoint.read(path)
    assert checkpoint.weights.keys() == {'w'} and checkpoint.not_finite == []
    assert checkpoint.content['state_dict']._metadata == {'': dict(version=2)}
    parameter = checkpoint.content['model']['parameter']
    assert parameter.numel() == 2 and not vars(parameter) and not parameter._backward_hooks


@pytest.mark.parametrize(
    'state', [dict(_log_history=3), dict(_log_history=np.ones(2), _count_history=np.ones(3), max_length=5), [1]]
)
def test_forged_histories_do_not_replace_methods(save, monkeypatch, state):
    """A forged history must not replace methods of the class, which mmengine's unpickling would allow."""
    before = dict(HistoryBuffer()._statistics_methods)
    monkeypatch.setattr(HistoryBuffer, '__getstate__', lambda _: state)
    with pytest.raises(CheckpointError, match=r'forged\.pth (is refused|cannot be read)'):
        read_checkpoint(save(dict(state_dict={}, history=HistoryBuffer()), 'forged.pth'))
    genuine = dict(_log_history=np.ones(2), _count_history=np.ones(2), max_length=5)
    methods = dict(statistics_methods=dict(mean=OrderedDict, mine=OrderedDict), mean=5)
    monkeypatch.setattr(HistoryBuffer, '__getstate__', lambda _: {**genuine, **methods})
    history = read_checkpoint(save(dict(state_dict={}, history=HistoryBuffer()), 'replaced.pth'))['history']
    assert type(history) is HistoryBuffer and history.statistics('mean') == 1
    assert HistoryBuffer._statistics_methods == before


@pytest.mark.parametrize('shape, strides', [((2**20, 2**20), (0, 0)), ((2**10, 8), (0, 1))])
@pytest.mark.parametrize('container', ['weights', 'optimizer'])
def test_tensor_larger_than_its_storage_is_refused(save, tmp_path, shape, strides, container):
    content = dict(state_dict=dict(w=torch.ones(1)), optimizer=dict(state=[{}]))
    tensors = content['state_dict'] if container == 'weights' else content['optimizer']['state'][0]
    tensors['x'] = torch.zeros(8).as_strided(shape, strides)
    path = save(content, 'large.pth')
    with pytest.raises(CheckpointError, match=r'large\.pth is refused: a tensor of .* in it has only'):
        publish(path, tmp_path / 'out.pth')
