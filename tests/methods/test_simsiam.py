"""SimSiam's switches do what their names say."""

from itertools import pairwise

import pytest
import torch
from test_contract import build, make_views
from torch import nn

from noneg.errors import NonegError
from noneg.methods.simsiam import SimSiam
from noneg.training.step import compute_gradient


def simsiam(**options: object) -> SimSiam:
    method = build("simsiam", **options)
    assert isinstance(method, SimSiam)
    return method


def test_the_loss_is_the_papers_algorithm() -> None:
    method = simsiam()
    e = method.embed(make_views())
    assert e.p is not None
    cosine = torch.nn.functional.cosine_similarity
    expected = -cosine(e.p[0], e.z[1]).mean() / 2 - cosine(e.p[1], e.z[0]).mean() / 2
    torch.testing.assert_close(method.objective(e).value, expected)


def test_without_predictor_stopping_the_gradient_only_halves_it() -> None:
    """Paper, section 4.2: with a symmetric loss and no predictor the two gradients are parallel."""
    stopped = simsiam(predictor="none")
    flowing = simsiam(predictor="none", stop_gradient=False)
    for method in (stopped, flowing):
        compute_gradient(method, make_views(), torch.arange(12))
    for one, other in zip(stopped.parameters(), flowing.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(2 * one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_a_fixed_predictor_is_not_trained() -> None:
    method = simsiam(predictor="fixed")
    assert not any(parameter.requires_grad for parameter in method.predictor.parameters())


def test_norms_are_where_the_paper_has_them() -> None:
    method = simsiam()
    assert isinstance(method.projector[-1], nn.BatchNorm1d)
    assert not method.projector[-1].affine
    assert isinstance(method.predictor[-1], nn.Linear)


@pytest.mark.parametrize(
    ("norm", "hidden", "projector_end", "predictor_end"),
    [
        ("default", 1, True, False),
        ("hidden", 1, False, False),
        ("none", 0, False, False),
        ("all", 1, True, True),
    ],
)
def test_norms_can_be_elsewhere(
    norm: str, hidden: int, projector_end: bool, predictor_end: bool
) -> None:
    """Paper, table 3."""
    method = simsiam(norm=norm)
    for head, end in ((method.projector, projector_end), (method.predictor, predictor_end)):
        assert isinstance(head, nn.Sequential)
        norms = [isinstance(layer, nn.BatchNorm1d) for layer in head]
        assert sum(norms) == hidden + end
        assert norms[-1] == end


def test_held_targets_repeat_for_k_steps_and_then_move() -> None:
    """Paper, section 5.2: one E-step for every k M-steps."""
    method, online = simsiam(hold=3), simsiam()
    probe, targets = make_views(seed=9), []
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for step in range(7):
        method.eval()
        targets.append(method.embed(probe).t)
        if step % 3 == 0:
            # Copied from the current network.
            torch.testing.assert_close(targets[-1], method.embed(probe).z.detach())
        method.train()
        optimizer.zero_grad()
        compute_gradient(method, make_views(seed=step), torch.arange(12))
        optimizer.step()
        method.after_step(step / 7)
    same = [torch.equal(one, other) for one, other in pairwise(targets)]  # type: ignore[arg-type]
    assert same == [True, True, False, True, True, False]
    assert online.held is None


def test_a_held_target_is_predicted_and_gets_no_gradient() -> None:
    method = simsiam(hold=2)
    with torch.no_grad():
        method.backbone.mix.weight.add_(0.3)  # type: ignore[operator, union-attr]
    _, e = compute_gradient(method, make_views(), torch.arange(12))
    assert e.p is not None
    assert e.t is not None
    assert not torch.allclose(e.t, e.z)
    cosine = torch.nn.functional.cosine_similarity
    expected = -cosine(e.p[0], e.t[1]).mean() / 2 - cosine(e.p[1], e.t[0]).mean() / 2
    torch.testing.assert_close(method.objective(e).value, expected)
    assert method.held is not None
    assert all(parameter.grad is None for parameter in method.held.parameters())


def test_the_count_of_held_steps_is_resumed() -> None:
    method, restored = simsiam(hold=3), simsiam(hold=3)
    for _ in range(2):
        method.after_step(0.1)
    restored.load_state_dict(method.state_dict())
    with torch.no_grad():
        restored.backbone.mix.weight.add_(0.3)  # type: ignore[operator, union-attr]
    restored.after_step(0.2)
    assert restored.held is not None
    held = restored.held.state_dict()["0.mix.weight"]
    assert torch.equal(held, restored.backbone.state_dict()["mix.weight"])


def test_the_predictors_rate_is_constant() -> None:
    assert simsiam().rates["predictor"].constant
    assert not simsiam(predictor_constant=False).rates["predictor"].constant


def test_targets_that_are_held_for_an_epoch_move_at_its_end() -> None:
    method, probe = simsiam(hold="epoch").eval(), make_views(seed=9)
    before = method.embed(probe).t
    assert before is not None
    with torch.no_grad():
        method.backbone.mix.weight.add_(0.3)  # type: ignore[operator, union-attr]
    for _ in range(200):
        method.after_step(0.5)
    held = method.embed(probe).t
    assert held is not None
    assert torch.equal(held, before)
    method.after_epoch()
    moved = method.embed(probe)
    assert moved.t is not None
    assert torch.equal(moved.t, moved.z)
    assert not torch.equal(moved.t, before)


def test_targets_cannot_be_held_for_no_time() -> None:
    with pytest.raises(NonegError, match="hold must be at least 1, or epoch, and is 0"):
        simsiam(hold=0)
