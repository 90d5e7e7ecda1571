"""``python -m pretrain evaluate``: retrieval, localisation, and a report to look at."""


def main(argv: list[str]) -> None:
    # Imported late: a release uses the maps of this folder and none of its training libraries.
    from pretrain.evaluate.command import main as evaluate

    evaluate(argv)
