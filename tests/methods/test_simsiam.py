"""SimSiam's switches do what their names say."""

import torch
from test_contract import build, make_views
from torch import nn

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
    torch.testing.assert_close(method.objective(e).loss, expected)


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


def test_the_predictors_rate_is_constant() -> None:
    assert simsiam().rates["predictor"].constant
    assert not simsiam(predictor_constant=False).rates["predictor"].constant
