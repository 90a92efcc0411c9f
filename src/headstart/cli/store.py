"""headstart store"""

from typing import Annotated, Literal

import typer


def store(
    action: Annotated[Literal["show", "clear"], typer.Argument(help="show: list what is stored; clear: free it.")] = "show",
) -> None:
    """Show or clear the feature store: what frozen networks saw in your photos, kept so that it is computed once.

    Clearing loses no result: the next run computes again what it needs.
    HEADSTART_STORE_BUDGET (such as 50GB) bounds it, HEADSTART_CACHE moves it.
    """
    from headstart.cli.tables import print_table
    from headstart.features.store import Store
    from headstart.files import cache_folder, human_bytes

    opened = Store(cache_folder() / "store")
    if action == "clear":
        cleared = opened.clear()
        print(f"freed {human_bytes(cleared.bytes)} in {len(cleared.removed)} spaces")
        if cleared.in_use:
            print(f"{len(cleared.in_use)} spaces are in use by other processes and were left")
        return
    spaces = opened.spaces()
    rows = [
        (
            one.network if one.network else "(pixels)",
            one.cut,
            one.stop if one.stop is not None else "",
            f"{one.px} px",
            one.view,
            one.dtype,
            f"{one.rows:,}",
            human_bytes(one.bytes),
            f"{one.last_used.astimezone():%Y-%m-%d %H:%M}",
        )
        for one in spaces
    ]
    print_table(("network", "cut", "stop", "input", "view", "dtype", "rows", "size", "last used"), rows, right=("rows", "size"))
    total = human_bytes(sum(one.bytes for one in spaces))
    print(f"\n{total} of at most {human_bytes(opened.budget_bytes)} in {opened.root}")
