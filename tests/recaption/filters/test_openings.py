import pytest

from recaption.filters.markup import strip_markdown
from recaption.filters.openings import strip_offer, strip_openings
from recaption.filters.words import unwrap


@pytest.mark.parametrize(
    ("raw", "caption"),
    [
        ("The image shows a dog on a sofa.", "A dog on a sofa."),
        ("This picture depicts three people on a bench.", "Three people on a bench."),
        ("In this image, we can see a dog on a sofa.", "A dog on a sofa."),
        ("In this image we can clearly see two cats.", "Two cats."),
        ("The photo captures the moment when a dog jumps.", "The moment when a dog jumps."),
        ("In the image, there is a dog.", "There is a dog."),
        ("In the photo there are two dogs.", "There are two dogs."),
        ("In this photo, taken at night, a car drives past.", "Taken at night, a car drives past."),
        ("The image shows that two dogs fight.", "Two dogs fight."),
        ("The image captures vividly a dog that jumps.", "A dog that jumps."),
        (
            "The image is a black-and-white photograph of a dog.",
            "A black-and-white photograph of a dog.",
        ),
        ("This is an image of a small red car.", "A small red car."),
        ("This image is of a small red car.", "A small red car."),
        ("A photo of a dog on a mat.", "A dog on a mat."),
        ("The provided image prominently features a car.", "A car."),
        ('This image features "Joe\'s Diner" at night.', '"Joe\'s Diner" at night.'),
        ("The image shows iPhone cases on a shelf.", "iPhone cases on a shelf."),
        ("Image description: a dog on a mat.", "A dog on a mat."),
        ("Sure! Here's a detailed caption for the image:\n\nThe image shows a dog.", "A dog."),
        ("the scene shows élégant chairs in a café.", "Élégant chairs in a café."),
        ("The image shows", ""),
        ("This is a picture of.", ""),
        ("In this image, we can see", ""),
    ],
)
def test_openings_go(raw: str, caption: str) -> None:
    assert strip_openings(raw) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "The image shows how a dog jumps.",
        "The image depicts, in the foreground, a car.",
        "The image is divided into four parts.",
        "The image is blurred at its edges.",
        "The picture frame on the wall is golden.",
        "The picture on the wall shows a horse.",
        "The scene is set in a park.",
        "Picture a dog on a sofa.",
        "A photographer takes a picture of a dog.",
        "Two signs in the image show arrows.",
        "Caption contests are announced on a board.",
    ],
)
def test_sentences_that_need_their_beginning_stay(caption: str) -> None:
    assert strip_openings(caption) == caption


def test_too_few_words_keep_their_opening() -> None:
    assert strip_openings("A picture of blocks.", min_words=3) == "A picture of blocks."
    assert strip_openings("Sure! The image shows a dog.", min_words=3) == "The image shows a dog."
    assert strip_openings("The image shows", min_words=3) == ""


def test_offers_go() -> None:
    assert strip_offer("A dog. Let me know if you would like more details!") == "A dog."
    assert strip_offer("A dog.\n\nFeel free to ask about its collar.") == "A dog."
    assert strip_offer("A card that says please let me know if you come") == (
        "A card that says please let me know if you come"
    )


def test_markdown_goes_and_its_words_stay() -> None:
    raw = "## A dog\n\n- It is **brown**.\n- It lies on a *soft* sofa.\n---\nThe lamp is __off__."
    assert strip_markdown(raw) == (
        "A dog\n\nIt is brown.\nIt lies on a soft sofa.\nThe lamp is off."
    )
    for text in ("A sign: 5 * 3 = 15 * 1", "House #4 and #5", "snake_case_name on a screen"):
        assert strip_markdown(text) == text


def test_quotation_marks_around_everything_go() -> None:
    assert unwrap('"A dog asleep on a mat."') == "A dog asleep on a mat."
    assert unwrap("\u201cA dog.\u201d") == "A dog."
    assert unwrap('"Stop" and "Go" are two "signs"') == '"Stop" and "Go" are two "signs"'
    assert unwrap('"Stop" says the sign') == '"Stop" says the sign'
