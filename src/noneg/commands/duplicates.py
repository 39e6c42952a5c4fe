"""`noneg duplicates`: near-duplicates in a collection, or between two."""

from collections.abc import Sequence
from pathlib import Path

from noneg.collection.duplicates import Group, Leak, find_duplicates, find_leaks
from noneg.collection.embedded import Collection, embed_collection
from noneg.commands.found import check_out, open_collection, picture, write_found
from noneg.report.gallery import Row, gallery

_PRINTED, _SHOWN, _MOST_IN_A_ROW = 20, 200, 12


def run(
    *,
    run: str,
    backbone: str | None,
    data: str,
    other: str | None,
    threshold: float | None,
    out: Sequence[Path],
    device: str,
    cache: bool,
) -> None:
    """Print the threshold and the duplicates, and write them to files.

    Raises:
        NonegError: there is no encoder, or no two images can be read.
    """
    check_out(out)
    encoder, collection = open_collection(run, backbone, data, device, cache)
    if other is None:
        groups, cut = find_duplicates(encoder, collection, threshold=threshold)
        print(cut.describe())
        _say_groups(groups, collection)
        rows = [_group_row(collection, each) for each in groups[:_SHOWN]] if _pages(out) else []
        records = [
            {"group": number, "name": collection.name(member), "least_cosine": round(cosine, 4)}
            for number, (members, cosine) in enumerate((g.members, g.cosine) for g in groups)
            for member in members
        ]
    else:
        second = embed_collection(encoder, other, cache=cache, device=device, progress=True)
        leaks, cut = find_leaks(encoder, collection, second, threshold=threshold)
        print(cut.describe())
        _say_leaks(leaks, collection, second)
        rows = (
            [_leak_row(collection, second, each) for each in leaks[:_SHOWN]] if _pages(out) else []
        )
        records = [
            {"name": collection.name(leak.first), "other": second.name(leak.second)}
            | {"cosine": round(leak.cosine, 4)}
            for leak in leaks
        ]
    note = f"{cut.describe()}. Look before you delete."
    write_found(out, records, lambda: gallery("Duplicates", run, note, rows))


def _pages(out: Sequence[Path]) -> bool:
    return any(each.suffix.lower() == ".html" for each in out)


def _say_groups(groups: Sequence[Group], collection: Collection) -> None:
    more = sum(len(each.members) - 1 for each in groups)
    print(
        f"{len(groups):,} groups of near-duplicates; without {more:,} of the "
        f"{len(collection):,} images there would be none"
    )
    for number, each in enumerate(groups[:_PRINTED]):
        print(f"\n{number:>4}  cosine {each.cosine:.3f} or more")
        for member in each.members[:_MOST_IN_A_ROW]:
            print(f"      {collection.name(member)}")
        if len(each.members) > _MOST_IN_A_ROW:
            print(f"      and {len(each.members) - _MOST_IN_A_ROW} more")
    if len(groups) > _PRINTED:
        print(f"\nand {len(groups) - _PRINTED:,} more groups: --out FILE writes all of them")


def _say_leaks(leaks: Sequence[Leak], collection: Collection, other: Collection) -> None:
    print(
        f"{len(leaks):,} of the {len(other):,} images of the {other.source.description} have a "
        f"near-duplicate in the {collection.source.description}"
    )
    for leak in leaks[:_PRINTED]:
        print(f"{leak.cosine:>8.3f}  {other.name(leak.second)}  {collection.name(leak.first)}")
    if len(leaks) > _PRINTED:
        print(f"and {len(leaks) - _PRINTED:,} more: --out FILE writes all of them")


def _group_row(collection: Collection, group: Group) -> Row:
    title = f"{len(group.members)} images, cosine {group.cosine:.3f} or more"
    shown = group.members[:_MOST_IN_A_ROW]
    return Row([picture(collection, member) for member in shown], title=title)


def _leak_row(collection: Collection, other: Collection, leak: Leak) -> Row:
    caption = f"{leak.cosine:.3f}"
    first = picture(other, leak.second)
    return Row([picture(collection, leak.first, caption)], first=first)
