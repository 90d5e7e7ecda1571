"""``python -m pretrain release``: a folder that opens in three lines, anywhere."""


def main(argv: list[str]) -> None:
    # Imported late: opening a release needs nothing of what writes one.
    from pretrain.release.command import main as release

    release(argv)
