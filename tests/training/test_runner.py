"""Adaptation to the machine, process groups and test-time augmentation."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from mlp_dense.config.config_file import read_config
from mlp_dense.errors import UserError
from mlp_dense.training import machine
from mlp_dense.training.mmdet_fixes import InstanceTTAModel
from support.configs import CONFIGS


def test_data_root_reaches_every_data_set_and_evaluator(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    for path in CONFIGS:
        old = Config.fromfile(path).data_root
        text = str(read_config(path, data_root=tmp_path / 'elsewhere')._cfg_dict)
        assert old not in text, path.stem
        assert text.count(f"'{tmp_path}/elsewhere/") >= 4, path.stem  # the variable and three loaders


@pytest.mark.parametrize(('launcher', 'rank'), [('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_RANK')])
def test_launchers_of_clusters_need_a_gpu(monkeypatch, launcher, rank):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setenv(rank, '3')
    assert machine.rank_of(launcher) == 3
    with pytest.raises(UserError, match=f'--launcher {launcher} needs a GPU; on CPUs use torchrun'):
        machine.start_processes(Config(dict(launcher=launcher)))


def test_unused_parameters_are_found_under_gloo(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend: None)
    for name, value in dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, MASTER_ADDR='here').items():
        monkeypatch.setenv(name, str(value))
    for expected in (True, False):
        cfg = Config(dict(launcher='pytorch', find_unused_parameters=expected))
        machine.start_processes(cfg)
        assert cfg.model_wrapper_cfg.find_unused_parameters is expected


def test_flipped_boxes_and_masks_are_flipped_back_before_merging():
    height, width = 4, 10
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, 1:3, 1:4] = True

    def view(boxes, masks, score, flip):
        instances = InstanceData(
            bboxes=torch.tensor([boxes]), masks=masks, scores=torch.tensor([score]), labels=torch.tensor([0])
        )
        meta = dict(ori_shape=(height, width), flip=flip, flip_direction='horizontal' if flip else None)
        return DetDataSample(metainfo=meta, pred_instances=instances)

    unflipped = view([1.0, 1.0, 4.0, 3.0], torch.zeros_like(mask), 0.2, False)
    flipped = view([6.0, 1.0, 9.0, 3.0], mask.flip(-1), 0.9, True)
    detector = torch.nn.Identity()
    detector.test_step = None  # required, but not called while merging
    model = InstanceTTAModel(nms=dict(type='nms', iou_threshold=0.5), max_per_img=5, module=detector)
    merged = model._merge_single_sample([unflipped, flipped]).pred_instances
    assert merged.bboxes.tolist() == [[1.0, 1.0, 4.0, 3.0]]
    assert merged.scores.tolist() == pytest.approx([0.9])
    assert torch.equal(merged.masks, mask), 'the better box keeps its own mask'
