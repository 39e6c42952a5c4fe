"""Sections of pictures: neighbors, suspected duplicates, outliers, and views."""

from collections.abc import Sequence
from html import escape

import numpy as np
import torch

from noneg.commands.views import views_of
from noneg.images import Images
from noneg.images.source import evenly_spaced
from noneg.report.html import Section
from noneg.report.numbers import count, percent
from noneg.report.pictures import Atlas, make_atlas
from noneg.report.sample import Sample
from noneg.report.sections.neighbors import (
    DUPLICATE_COSINE,
    NEIGHBORS,
    Neighbors,
    Pair,
    find_outliers,
    find_typical,
)
from noneg.training.config import TrainConfig

_QUERIES = 6
_SHOWN = 10
_MOST_PAIRS = 12
_MOST_OUTLIERS = 16
_VIEWED = 6


def neighbors_section(
    sample: Sample, neighbors: Neighbors, clusters: np.ndarray, atlas: Atlas
) -> Section:
    """A dozen images, typical and odd, each with those that the encoder finds most alike."""
    typical = find_typical(sample.directions, clusters, _QUERIES)
    odd = [each for each in find_outliers(neighbors, 2 * _QUERIES) if each not in typical]
    blocks = [
        f'<div class="block"><h3>{title}</h3>'
        f"{''.join(_row(query, sample, neighbors, atlas) for query in queries)}</div>"
        for title, queries in (
            ("Typical: nearest to the middle of a cluster", typical),
            ("Odd: farthest from their neighbors", odd[:_QUERIES]),
        )
        if queries
    ]
    agreement = ""
    if sample.labels is not None:
        same = sample.labels[neighbors.index] == sample.labels[:, None]
        shares = np.bincount(sample.labels[sample.labels >= 0]) / len(sample.labels)
        agreement = (
            f" Of the {neighbors.index.shape[1]} nearest, {percent(float(same.mean()))} have the "
            f"image's own label ({percent(float(np.square(shares).sum()))} by chance); these are "
            "ringed."
        )
    introduction = (
        "The image on the left, then its nearest by cosine of embeddings less their mean."
        + agreement
    )
    return Section("neighbors", "Nearest neighbors", introduction, "".join(blocks))


def _row(query: int, sample: Sample, neighbors: Neighbors, atlas: Atlas) -> str:
    cells = []
    for other, cosine in zip(
        neighbors.index[query, :_SHOWN], neighbors.cosine[query, :_SHOWN], strict=True
    ):
        alike = sample.labels is not None and sample.labels[other] == sample.labels[query]
        cells.append(
            f'<div class="cell{" same" if alike else ""}">'
            f"{atlas.picture(int(other), sample.names[other])}<small>{cosine:.2f}</small></div>"
        )
    name = sample.names[query]
    return (
        f'<div class="row"><div class="cell query">{atlas.picture(query, name)}'
        f'<small class="name">{escape(_short(name))}</small></div>{"".join(cells)}</div>'
    )


def duplicates_section(
    sample: Sample, pairs: Sequence[Pair], neighbors: Neighbors, atlas: Atlas
) -> Section:
    """Pairs that may be one image, and images like no other."""
    body = (
        f'<div class="block"><h3>Suspected duplicates: {count(len(pairs), "pair")}</h3>'
        f'<p class="note">Suspected where the cosine is {DUPLICATE_COSINE} or more; '
        "those whose pixels differ least come first"
        f"{f', and {_MOST_PAIRS} are shown' if len(pairs) > _MOST_PAIRS else ''}.</p>"
    )
    if pairs:
        shown = "".join(_pair(sample, each, atlas) for each in pairs[:_MOST_PAIRS])
        body += f'<div class="pairs">{shown}</div>'
    else:
        body += '<p class="nothing">None.</p>'
    median = float(np.median(neighbors.strangeness))
    cells = "".join(
        f'<div class="cell">{atlas.picture(each, sample.names[each])}'
        f"<small>{neighbors.strangeness[each]:.2f}</small>"
        f'<small class="name">{escape(_short(sample.names[each]))}</small></div>'
        for each in find_outliers(neighbors, _MOST_OUTLIERS)
    )
    body += (
        '</div><div class="block"><h3>Suspected outliers</h3><p class="note">The farthest from '
        f"their {min(NEIGHBORS, neighbors.index.shape[1])} nearest neighbors: 1 less the mean "
        f"cosine with these. The median image has {median:.2f}.</p>"
        f'<div class="row outliers">{cells}</div></div>'
    )
    introduction = f"Found in {sample.share}, by the embeddings alone. Look before you delete."
    return Section("duplicates", "Duplicates and outliers", introduction, body)


def _pair(sample: Sample, pair: Pair, atlas: Atlas) -> str:
    pixels = (
        "equal pixels"
        if pair.difference == 0
        else f"pixels differ by {max(0.1, 100 * pair.difference):.1f}%"
    )
    names = "".join(
        f'<small class="name">{escape(_short(sample.names[each]))}</small>'
        for each in (pair.first, pair.second)
    )
    return (
        f'<div class="pair"><div>{atlas.picture(pair.first, sample.names[pair.first])}'
        f"{atlas.picture(pair.second, sample.names[pair.second])}</div>"
        f"<small>cosine {pair.cosine:.4f}, {pixels}</small>{names}</div>"
    )


def _short(name: str) -> str:
    """The end of a long name, which tells more than its beginning."""
    return name if len(name) <= 28 else f"\N{HORIZONTAL ELLIPSIS}{name[-27:]}"


def views_section(images: Images, config: TrainConfig) -> tuple[Section, Atlas]:
    """Some images, and the views of them that the network saw in its first and second epoch."""
    chosen = np.array(evenly_spaced(len(images.pixels), _VIEWED))
    pixels = torch.from_numpy(np.ascontiguousarray(images.pixels[chosen]))
    columns = views_of(pixels, torch.from_numpy(chosen), config, epochs=min(2, config.epochs))
    tiles = {"image": _tiles(pixels)}
    tiles.update({title: _tiles(views) for title, views in columns.items()})
    atlas = make_atlas("view", np.concatenate(list(tiles.values())))
    head = "".join(f'<th scope="col">{title}</th>' for title in tiles)
    rows = []
    for row in range(len(chosen)):
        cells = "".join(
            f"<td>{atlas.picture(column * len(chosen) + row, title)}</td>"
            for column, title in enumerate(tiles)
        )
        rows.append(f"<tr>{cells}</tr>")
    policy = config.views if isinstance(config.views, str) else "your own"
    introduction = (
        f"What the network was shown: the views <b>{escape(policy)}</b>, of {config.size} px. It "
        "learns to ignore whatever differs between the views of one image."
    )
    body = (
        f'<div class="scroll"><table class="views"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return Section("views", "Views", introduction, body), atlas


def _tiles(pixels: torch.Tensor) -> np.ndarray:
    """uint8 [N, C, 64, 64], small images enlarged pixel by pixel."""
    side = pixels.shape[-1]
    scale = max(1, 64 // side)
    enlarged = pixels.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    if enlarged.shape[-1] != 64:
        enlarged = (
            torch.nn.functional.interpolate(
                enlarged.float(), size=(64, 64), mode="bilinear", antialias=True
            )
            .round()
            .to(torch.uint8)
        )
    tiles: np.ndarray = enlarged.numpy()
    return tiles
