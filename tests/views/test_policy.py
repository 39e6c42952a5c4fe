"""The views that settings ask for: names, lists of settings, and what is refused."""

import pytest
import torch

from noneg.errors import NonegError
from noneg.training.config import config_from_dict, make_config
from noneg.views import POLICIES, View, draw_views
from noneg.views.policy import resolve_policy
from noneg.views.preview import views_of


def test_a_name_a_list_and_a_number_of_views_make_a_policy() -> None:
    assert resolve_policy("byol", 96) == POLICIES["byol"](96)
    one, other = View(hue=0.0), View(size=16, crop_scale=(0.3, 1.0), flip=1.0)
    # Lists and whole numbers, as YAML holds them.
    plain = [{"hue": 0}, {"size": 16, "crop_scale": [0.3, 1], "flip": 1}]
    assert resolve_policy(plain, 32) == resolve_policy([one, other], 32) == (one, other)
    assert resolve_policy(plain, 32, 3) == (one, other, one)
    assert resolve_policy("multi_crop", 32, 2) == POLICIES["multi_crop"](32)[:2]


def test_a_config_makes_the_same_policy() -> None:
    config = make_config("data", views=[{"hue": 0.0}, {"blur": 0.5}], num_views=3)
    assert config.policy(32) == (View(hue=0.0), View(blur=0.5), View(hue=0.0))
    assert make_config("data", views="simclr").policy(96) == POLICIES["simclr"](96)


def test_a_recipe_may_have_a_number_of_views_that_a_setting_replaces() -> None:
    assert len(make_config("data", method="fastsiam").policy(32)) == 4
    assert len(make_config("data", method="fastsiam", num_views=2).policy(32)) == 2
    assert len(make_config("data", method="mmcr", recipe="adapt").policy(32)) == 4
    crops = make_config("data", method="emp_ssl", recipe="paper").policy(96)
    assert len(crops) == 20
    assert {view.crop_scale for view in crops} == {(0.25, 0.25)}


def test_the_older_name_of_a_setting_is_read() -> None:
    views = [{"grey": 0.0}, {"grey": 0.5}]
    expected = (View(grayscale=0.0), View(grayscale=0.5))
    assert resolve_policy(views, 32) == expected
    assert config_from_dict({"method": "vicreg", "views": views}).policy(32) == expected


@pytest.mark.parametrize(
    ("views", "size", "num_views", "named"),
    [
        ("byle", 32, None, "no views 'byle'; there are: byol"),
        ([], 32, None, "name of a policy or a list of views"),
        (None, 32, None, "name of a policy or a list of views"),
        ([3], 32, None, "a view is a table of settings, not 3"),
        ([{"hues": 0.1}], 32, None, "no setting 'hues'; there are: size"),
        ([{"hue": "much"}], 32, None, "wrong kind"),
        ([{"crop_scale": [0.5]}], 32, None, "wrong kind"),
        ([{"crop_scale": 0.5}], 32, None, "wrong kind"),
        ([{"flip": 2.0}], 32, None, r"flip must be in \[0, 1\]"),
        ("byol", 0, None, "size is at least 1 pixel"),
        ("byol", 32, 0, "num_views is at least 1"),
    ],
)
def test_nonsense_is_one_sentence(
    views: object, size: int, num_views: int | None, named: str
) -> None:
    with pytest.raises(NonegError, match=named):
        resolve_policy(views, size, num_views)


def test_a_preview_is_what_training_draws_before_normalization() -> None:
    pixels = torch.randint(0, 256, (3, 2, 20, 20), dtype=torch.uint8)
    index = torch.tensor([4, 0, 7])
    policy = resolve_policy([{"size": 8}, {}], 16)
    found = views_of(pixels, index, policy, size=16, seed=5, epochs=range(2))
    assert list(found) == [f"epoch {epoch}, view {view}" for epoch in (1, 2) for view in (1, 2)]
    mean, std = (0.3, 0.6), (0.5, 0.25)
    drawn = draw_views(pixels, index, policy, size=16, seed=5, epoch=1, mean=mean, std=std)
    for view, name in zip(drawn, ("epoch 2, view 1", "epoch 2, view 2"), strict=True):
        shape = (1, 2, 1, 1)
        restored = view * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
        torch.testing.assert_close(255 * restored, found[name].float(), atol=0.51, rtol=0)
