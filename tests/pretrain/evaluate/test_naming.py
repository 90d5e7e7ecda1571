"""Which thing a sentence names."""

from pretrain.evaluate.naming import mentions, named_thing, vocabulary_of

BOX_A, BOX_B = [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]


def thing(name: str, box: list[float], color: str | None = None) -> dict:
    return {"name": name, "box": box} | ({"color": color} if color else {})


def test_one_thing_is_found_by_whole_words_in_any_case() -> None:
    objects = [thing("cat", BOX_A), thing("tree", BOX_B)]
    named = named_thing("The Cat sleeps.", objects)
    assert named is not None
    assert (named.name, named.boxes) == ("cat", (tuple(BOX_A),))
    assert named_thing("A catalogue of street signs", objects) is None


def test_a_sentence_with_two_things_is_not_used() -> None:
    objects = [thing("cat", BOX_A), thing("tree", BOX_B)]
    assert named_thing("a cat under the tree", objects) is None


def test_the_longest_name_wins() -> None:
    objects = [thing("baseball", BOX_A), thing("baseball bat", BOX_B)]
    named = named_thing("he swings the baseball bat", objects)
    assert named is not None
    assert named.name == "baseball bat"
    assert mentions("hot dog, dog", ["dog", "hot dog"]) == [("hot dog", 0), ("dog", 2)]


def test_names_of_the_set_that_are_not_in_the_image_do_not_mislead() -> None:
    vocabulary = vocabulary_of([[thing("hot dog", BOX_A)], [thing("dog", BOX_A)]])
    assert named_thing("girl eats a hot dog", [thing("dog", BOX_A)], vocabulary) is None
    assert named_thing("girl eats a hot dog", [thing("dog", BOX_A)]) is not None


def test_things_of_one_name_count_together() -> None:
    named = named_thing("two balls and a ball", [thing("ball", BOX_A), thing("ball", BOX_B)])
    assert named is not None
    assert named.boxes == (tuple(BOX_A), tuple(BOX_B))


def test_a_colour_tells_things_of_one_name_apart() -> None:
    objects = [thing("ball", BOX_A, "red"), thing("ball", BOX_B, "blue")]
    for sentence in ("the blue ball", "A blue striped small ball lies there"):
        named = named_thing(sentence, objects)
        assert named is not None
        assert (named.name, named.boxes) == ("blue ball", (tuple(BOX_B),))
    assert named_thing("a red ball left of a blue ball", objects) is None


def test_the_colour_of_another_thing_is_not_borrowed() -> None:
    objects = [thing("ball", BOX_A, "red"), thing("ball", BOX_B, "blue")]
    named = named_thing("a blue car, ball", objects, ["car"])
    assert named is not None
    assert len(named.boxes) == 2
