"""The body model against smplx, hand-made poses and plain loops."""

import contextlib
import io
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch

from depthbal.adapters.hmr.body import H36M_TO_J14, BodyModel, evaluation_joints, load_body
from depthbal.adapters.hmr.rotations import rotmats_of
from depthbal.adapters.hmr.skinning import world_transforms
from depthbal.adapters.hmr.smpl_files import PARENTS, synthetic_h36m_regressor, synthetic_smpl


def _draw(samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pose = torch.randn(samples, 72, dtype=torch.float64, generator=generator)
    betas = 2 * torch.randn(samples, 10, dtype=torch.float64, generator=generator)
    return rotmats_of(pose), betas


@pytest.mark.parametrize(
    # smplx rounds a file's float64 to float32 before it computes in float64
    ("stored", "tolerance"),
    [(np.float64, 1e-6), (np.float32, 1e-12)],
)
def test_vertices_equal_smplx_on_the_same_file(tmp_path, stored, tolerance):
    smplx = pytest.importorskip(
        "smplx",
        reason="smplx (non-commercial licence) is not installed: pip install depthbal[smpl]",
    )
    arrays = {
        key: array.astype(stored) if array.dtype.kind == "f" else array
        for key, array in synthetic_smpl(vertices=64).items()
    }
    arrays["J_regressor"] = scipy.sparse.csc_matrix(arrays["J_regressor"])
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol=2))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = smplx.SMPL(
            str(path),
            create_transl=False,
            dtype=torch.float64,
            # the published body's extra points are not in a small one
            vertex_ids={name: k for k, name in enumerate(smplx.vertex_ids.vertex_ids["smplh"])},
        )
    rotmats, betas = _draw(5)
    expected = theirs(
        betas=betas, body_pose=rotmats[:, 1:], global_orient=rotmats[:, :1], pose2rot=False
    )
    body = load_body(path, torch.float64)
    torch.testing.assert_close(body(rotmats, betas), expected.vertices, atol=tolerance, rtol=0)


def test_vertices_equal_plain_loops_with_weights_that_do_not_sum_to_one():
    arrays = synthetic_smpl(vertices=25, seed=2)
    arrays["weights"] = np.random.default_rng(0).random((25, 24))
    rotmats, betas = _draw(2)
    found = BodyModel(arrays, torch.float64)(rotmats, betas).numpy()
    for rotmat, beta, vertices in zip(rotmats.numpy(), betas.numpy(), found, strict=True):
        shaped = arrays["v_template"] + arrays["shapedirs"] @ beta
        joints = arrays["J_regressor"] @ shaped
        posed = shaped + arrays["posedirs"] @ (rotmat[1:] - np.eye(3)).ravel()
        world = []
        for k, parent in enumerate(PARENTS):
            local = np.eye(4)
            local[:3, :3] = rotmat[k]
            local[:3, 3] = joints[k] - (joints[parent] if k else 0)
            world.append(world[parent] @ local if k else local)
        for v, vertex in enumerate(posed):
            moved = np.zeros(3)
            for k in range(24):
                back = np.append(vertex - joints[k], 1.0)
                moved += arrays["weights"][v, k] * (world[k] @ back)[:3]
            np.testing.assert_allclose(vertices[v], moved, atol=1e-12)


def test_turning_the_root_turns_the_whole_body_about_the_pelvis():
    arrays = synthetic_smpl()
    body = BodyModel(arrays, torch.float64)
    rotmats, betas = _draw(3)
    turn = _draw(1, seed=9)[0][0, 0]
    turned = rotmats.clone()
    turned[:, 0] = turn @ rotmats[:, 0]
    shaped = body.v_template + torch.einsum("vcs,bs->bvc", body.shapedirs, betas)
    pelvis = (body.J_regressor @ shaped)[:, :1]
    expected = (body(rotmats, betas) - pelvis) @ turn.T + pelvis
    torch.testing.assert_close(body(turned, betas), expected)


def test_a_quarter_turn_of_a_chain_puts_its_end_where_it_belongs():
    joints = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    rotmats = torch.stack([torch.eye(3), quarter, quarter])[None]
    rotations, shifts = world_transforms(rotmats, joints, [-1, 0, 1])
    # the second limb points up from (1, 0, 0); what lay ahead of the last joint now lies behind it
    points = torch.tensor([[0.5, 0, 0], [2.0, 0, 0], [3.0, 0, 0]])
    moved = (rotations[0] @ points[:, :, None]).squeeze(-1) + shifts[0]
    torch.testing.assert_close(moved, torch.tensor([[0.5, 0, 0], [1.0, 1, 0], [0.0, 1, 0]]))


def test_gradients_of_pose_and_shape_are_those_of_finite_differences():
    body = BodyModel(synthetic_smpl(vertices=24), torch.float64)
    rotmats, betas = _draw(1)
    inputs = (rotmats.requires_grad_(), betas.requires_grad_())
    assert torch.autograd.gradcheck(body, inputs, fast_mode=True)


def test_a_body_keeps_its_file_out_of_checkpoints_and_names_wrong_shapes():
    body = BodyModel(synthetic_smpl())
    assert body.state_dict() == {}  # SMPL's licence forbids passing the arrays on
    with pytest.raises(ValueError, match=r"rotmats \(B, 24, 3, 3\).*got \(2, 24, 6\)"):
        body(torch.zeros(2, 24, 6), torch.zeros(2, 10))


def test_evaluation_joints_are_fourteen_seen_from_the_pelvis():
    arrays = synthetic_smpl(vertices=30)
    regressor = synthetic_h36m_regressor(arrays)
    vertices = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 30, 3)))
    found = evaluation_joints(vertices, torch.from_numpy(regressor))
    assert found.shape == (2, 14, 3)
    for sample in range(2):
        places = [
            sum(w * x for w, x in zip(row, vertices[sample], strict=True)) for row in regressor
        ]
        for k, joint in enumerate([6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]):
            torch.testing.assert_close(found[sample, k], places[joint] - places[0])
    assert sorted(set(range(17)) - set(H36M_TO_J14)) == [0, 7, 9]  # pelvis, torso, nose
