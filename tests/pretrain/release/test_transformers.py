"""transformers' `Auto` classes open an export; a release opens by the model's own class."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import pretrain
from pretrain.checksums import write_checksums
from pretrain.inference import RELEASE_CONFIG, RELEASE_TOKENIZER, load_for_inference
from pretrain.release.exports.check import sample_pictures
from pretrain.release.exports.command import main
from pretrain.release.sample import CAPTIONS
from pretrain.release_config import whole_tree
from recaption.common.config import UserError
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_run

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
canopy = pytest.importorskip("pretrain.release.transformers")


@pytest.fixture(scope="module", params=["caft", "clip"])
def run(request, tmp_path_factory):
    config = {"caft": TINY, "clip": TINY_CLIP}[request.param]
    return write_run(tmp_path_factory.mktemp("transformers") / request.param, config)


@pytest.fixture(scope="module")
def folder(run):
    output = run.parent / "exported"
    main(["to=transformers", f"run={run}", f"output={output}"])
    return output


def test_the_auto_classes_open_it(run, folder):
    model = transformers.AutoModel.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert type(model) is canopy.CanopyModel and type(processor) is canopy.CanopyProcessor
    inputs = processor(text=CAPTIONS, images=sample_pictures())
    original = pretrain.load(run)
    with torch.inference_mode():
        output = model(**inputs)
    expected = original.similarity(sample_pictures(), CAPTIONS)
    torch.testing.assert_close(output.logits_per_image, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.logits_per_text, expected.T, rtol=1e-5, atol=1e-5)
    images, texts = original.encode_image(sample_pictures()), original.encode_text(CAPTIONS)
    torch.testing.assert_close(output.image_embeds, images, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.text_embeds, texts, rtol=0, atol=1e-5)


def test_features_alone_and_without_a_mask(run, folder):
    model = transformers.AutoModel.from_pretrained(folder)
    inputs = transformers.AutoProcessor.from_pretrained(folder)(text=CAPTIONS[1])
    assert set(inputs) == {"input_ids", "attention_mask"}
    features = model.get_text_features(**inputs)
    torch.testing.assert_close(model.get_text_features(inputs["input_ids"]), features)
    if "clip" in run.name:
        torch.testing.assert_close(model.get_text_features(inputs["input_ids"][:, 0]), features)
    output = model(**inputs)
    assert output.logits_per_image is None and output.image_embeds is None


def test_saved_and_opened_again(folder, tmp_path):
    """By transformers itself: the positions that no file holds stay."""
    model = transformers.AutoModel.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path)
    buffers = dict(again.named_buffers())
    for name, tensor in model.named_buffers():
        assert torch.equal(buffers[name], tensor), name
    inputs = transformers.AutoProcessor.from_pretrained(tmp_path)(text=CAPTIONS)
    assert torch.equal(again.get_text_features(**inputs), model.get_text_features(**inputs))


@pytest.fixture
def released(tmp_path):
    run = write_run(tmp_path / "run", TINY)
    original, released = load_for_inference(run), tmp_path / "released"
    original.tokenizer.save(released / RELEASE_TOKENIZER)
    (released / RELEASE_CONFIG).write_text(json.dumps(whole_tree(original.config)))
    shutil.copy(original.weights, released)
    write_checksums(released)
    assert load_for_inference(released).source == released  # it is what a release is
    return released


def test_a_release_opens_by_its_class(released):
    original = load_for_inference(released.parent / "run")
    model = canopy.CanopyModel.from_pretrained(released)
    inputs = canopy.CanopyProcessor.from_pretrained(released)(images=sample_pictures())
    with torch.inference_mode():
        found = model.get_image_features(**inputs)
        pixels = torch.stack([original.preprocess(picture) for picture in sample_pictures()])
        assert torch.equal(found, original.model.encode_image(pixels).pooled)

    for name, opens in (
        ("model.safetensors", canopy.CanopyModel),
        ("tokenizer/bpe_simple_vocab_16e6.txt.gz", canopy.CanopyProcessor),
    ):
        content = (released / name).read_bytes()
        (released / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UserError, match=f"{name} is damaged: its checksum"):
            opens.from_pretrained(released)
        (released / name).write_bytes(content)
    (released / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="holds no SHA256SUMS"):
        canopy.CanopyModel.from_pretrained(released)


def test_a_processor_opens_alone_and_beside_a_model_saved_alone(folder, tmp_path):
    processor = transformers.AutoProcessor.from_pretrained(folder)
    processor.save_pretrained(tmp_path / "alone")
    transformers.AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "model")
    expected = processor(text=CAPTIONS, images=sample_pictures())
    for name in ("alone", "model"):
        opened = transformers.AutoProcessor.from_pretrained(tmp_path / name)
        found = opened(text=CAPTIONS, images=sample_pictures())
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), (name, key)
    with pytest.raises(UserError, match="cannot do push_to_hub"):
        processor.save_pretrained(tmp_path / "sent", push_to_hub=True)


def test_a_release_without_its_tokenizer_is_refused(released):
    for path in (released / RELEASE_TOKENIZER).iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"tokenizer/.* is missing, though SHA256SUMS lists it"):
        canopy.CanopyProcessor.from_pretrained(released)


def test_names_on_a_hub(folder, released, hub):
    for name, source in (("lab/export", folder), ("lab/release", released)):
        files = [path for path in source.rglob("*") if path.is_file()]
        hub.files[name] = {path.relative_to(source).as_posix(): path.read_bytes() for path in files}
    expected = transformers.AutoModel.from_pretrained(folder).state_dict()
    inputs = transformers.AutoProcessor.from_pretrained(folder)(text=CAPTIONS[1])
    opened = canopy.CanopyModel.from_pretrained("lab/export", revision="main").state_dict()
    assert all(torch.equal(opened[name], tensor) for name, tensor in expected.items())
    processor = canopy.CanopyProcessor.from_pretrained("lab/export", revision="main")
    assert torch.equal(processor(text=CAPTIONS[1])["input_ids"], inputs["input_ids"])
    assert type(canopy.CanopyModel.from_pretrained("lab/release")) is canopy.CanopyModel
    canopy.CanopyProcessor.from_pretrained("lab/release")
    hub.files["lab/release"]["model.safetensors"] += b"\0"
    with pytest.raises(UserError, match=r"model\.safetensors is damaged: its checksum"):
        canopy.CanopyModel.from_pretrained("lab/release")
    hub.files["lab/release"]["tokenizer/bpe_simple_vocab_16e6.txt.gz"] += b"\0"
    with pytest.raises(UserError, match="is damaged: its checksum"):
        canopy.CanopyProcessor.from_pretrained("hf://lab/release")
    with pytest.raises(UserError, match="hf://lab/none cannot be fetched"):
        canopy.CanopyModel.from_pretrained("lab/none")
    with pytest.raises(UserError, match="/lab/none is no folder"):
        canopy.CanopyProcessor.from_pretrained(Path("/lab/none"))


@pytest.mark.parametrize("kind", ["image", "array", "number"])
def test_what_is_no_picture_is_named(kind, folder):
    processor = transformers.AutoProcessor.from_pretrained(folder)
    array = np.zeros((8, 8, 3), np.uint8)
    odd = {"image": array, "array": np.stack([array, array]), "number": 3}[kind]
    for images in (odd, [odd]):
        with pytest.raises(UserError, match=r"is no picture: .*Image\.fromarray\(array\)"):
            processor(images=images)


def test_keywords_of_other_processors(folder):
    processor = transformers.AutoProcessor.from_pretrained(folder)
    inputs = processor(text=CAPTIONS[1], return_tensors="pt", padding=True, truncation=True)
    assert torch.equal(inputs["input_ids"], processor(text=CAPTIONS[1])["input_ids"])
    assert processor(text=CAPTIONS[1], return_tensors=None, videos=None).keys() == inputs.keys()
    for asked in ({"return_tensors": "np"}, {"max_length": 8}, {"truncation": False}):
        ((name, value),) = asked.items()
        with pytest.raises(UserError, match=f"cannot do {name}={value!r}: leave it out"):
            processor(text=CAPTIONS[1], **asked)


def test_texts_that_are_cut_or_empty(folder):
    processor = transformers.AutoProcessor.from_pretrained(folder)
    with pytest.warns(UserWarning, match="longer than the 32 tokens .* 1 of the texts"):
        processor(text=["Short.", "A word after a word " * 10])
    with pytest.raises(ValueError, match="a caption is empty"):
        processor(text=["Short.", " "])
    with pytest.raises(ValueError, match="the list is empty"):
        processor(text=[])


def test_an_empty_configuration_is_no_model():
    with pytest.raises(UserError, match="this CanopyConfig is empty"):
        canopy.CanopyModel(canopy.CanopyConfig())
