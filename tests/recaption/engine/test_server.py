"""The engine against a real HTTP server on loopback; ``test_server_vllm`` asks a real vLLM."""

import asyncio
import base64
import email.utils
import io
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from recaption.common.config import ConfigError, UserError, load_config
from recaption.config import RunConfig
from recaption.engine import CaptionAnswer, CaptionRequest, EngineConfig, caption_origins
from recaption.engine.encoding import ImageEncoding
from recaption.engine.server import ServerEngine, sampling_arguments
from recaption.engine.server_settings import ServerConfig, server_origins
from recaption.images import ImageConfig
from recaption.prompts import PromptConfig, SamplingConfig, seed_of
from tests.recaption.engine.chat_server import Behaviour, ChatServer, Handler, completion
from tests.recaption.shard_files import picture

PROMPTS = {"long": PromptConfig()}
IMAGE = picture(1)


def settings(*servers: ChatServer, **changed: Any) -> ServerConfig:
    quick = ServerConfig(
        url=[server.url for server in servers], backoff=0.01, num_tries=3, patience=5
    )
    return replace(quick, **changed)


def ask(
    config: ServerConfig,
    *keys: str,
    prompts: dict[str, PromptConfig] = PROMPTS,
    num_servers: int = 1,
) -> tuple[list[CaptionAnswer], ServerEngine]:
    """The answers to requests whose prompts are their keys, all asked of the servers at once."""

    async def all_of_them() -> tuple[list[CaptionAnswer], ServerEngine]:
        engine = ServerEngine(config, prompts)
        await engine.start()
        try:
            async with asyncio.timeout(60):
                while engine.num_servers_up < num_servers:
                    await asyncio.sleep(0.01)
                requests = [CaptionRequest(key, "long", key, IMAGE) for key in keys]
                return await asyncio.gather(*map(engine.answer, requests)), engine
        finally:
            await engine.close()

    return asyncio.run(all_of_them())


def refusing(*refusal: Any, **headers: str) -> Behaviour:
    return lambda handler, key, number: handler.refuse(*refusal, **headers)


def test_a_caption_and_what_was_asked_for_it() -> None:
    prompts = {"long": PromptConfig(system="Be brief.", sampling=SamplingConfig(max_tokens=7))}
    with ChatServer() as server:
        (answer,), _ = ask(settings(server, image_format="png"), "a", prompts=prompts)
    assert answer == CaptionAnswer("Caption of a.", num_tokens=3, finish_reason="stop")
    (request,) = server.asked
    assert request["body"] == {
        "model": "some/model",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": request["body"]["messages"][1]["content"]},
        ],
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 7,
    }
    shown, text = request["body"]["messages"][1]["content"]
    assert text == {"type": "text", "text": "a"}
    kind, data = shown["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.tobytes() == IMAGE.tobytes()


def test_sampling_as_the_server_understands_it() -> None:
    plain = sampling_arguments(SamplingConfig(), 5, is_vllm=False)
    assert plain == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 256}
    hot = SamplingConfig(temperature=0.7, top_k=20, repetition_penalty=1.1, stop=["\n"])
    assert sampling_arguments(hot, 5, is_vllm=False) == {
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 256,
        "stop": ["\n"],
        "seed": 5,
        "extra_body": {"top_k": 20, "repetition_penalty": 1.1},
    }
    # Else it would take them from the model's generation_config.json.
    told = sampling_arguments(SamplingConfig(), 5, is_vllm=True)
    assert told["extra_body"] == {"top_k": -1, "repetition_penalty": 1.0, "min_p": 0.0}


def test_vllm_is_known_by_its_list_and_each_key_has_its_seed() -> None:
    prompts = {"long": PromptConfig(sampling=SamplingConfig(temperature=1.0, seed=3))}
    with ChatServer(owned_by="vllm") as server:
        ask(settings(server), "a", "b", prompts=prompts)
    seeds = {request["key"]: request["body"]["seed"] for request in server.asked}
    assert seeds == {key: seed_of("long", key, 3) for key in ("a", "b")}
    assert all(request["body"]["top_k"] == -1 for request in server.asked)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_asks_for_rest_gets_it_from_all_requests(form: str) -> None:
    refused: list[float] = []
    answered: list[float] = []

    def behave(handler: Handler, key: str, number: int) -> None:
        if not refused:
            refused.append(time.time())
            seconds = "1.2" if form == "seconds" else email.utils.formatdate(time.time() + 3)
            return handler.refuse(429, "slow down", Retry_After=seconds)
        time.sleep(0.2)
        answered.append(time.time())
        return handler.caption(key)

    with ChatServer(behave) as server:
        config = settings(server)

        async def one_after_the_other() -> list[CaptionAnswer]:
            engine = ServerEngine(config, PROMPTS)
            await engine.start()
            first = asyncio.create_task(engine.answer(CaptionRequest("a", "long", "a", IMAGE)))
            (endpoint,) = engine._endpoints._endpoints
            while not endpoint.rests_until:
                await asyncio.sleep(0.01)
            second = await engine.answer(CaptionRequest("b", "long", "b", IMAGE))
            answers = [await first, second]
            await engine.close()
            return answers

        answers = asyncio.run(one_after_the_other())
    assert [answer.caption for answer in answers] == ["a", "b"]
    assert min(answered) - refused[0] > 1.2


def test_what_may_pass_is_tried_again_and_what_does_not_is_a_row() -> None:
    all_are_done = threading.Event()

    def behave(handler: Handler, key: str, number: int) -> None:
        if key == "always" or (key in ("once", "twice") and number < len(key) - 3):
            handler.refuse(500, "out of luck")
        elif key == "slow":
            all_are_done.wait(60)
        elif key == "mumbles" and number == 0:
            handler.reply(200, b'{"choices": [')
        elif key == "html" and number == 0:
            handler.reply(200, b"<html>busy</html>", Content_Type="text/html")
        elif key == "empty" and number == 0:
            handler.reply(200, {"error": {"message": "none"}})
        else:
            handler.caption(key)

    keys = ("fine", "once", "twice", "always", "slow", "mumbles", "html", "empty")
    with ChatServer(behave) as server:
        answers, engine = ask(settings(server, timeout=2), *keys)
        all_are_done.set()
    by_key = dict(zip(keys, answers, strict=True))
    failures = {key: answer.failure for key, answer in by_key.items() if answer.failure}
    assert set(failures) == {"always", "slow"}
    assert failures["always"].startswith("server-failed: InternalServerError: Error code: 500")
    assert "out of luck" in failures["always"] and failures["always"].endswith("(3 tries)")
    assert failures["slow"] == "server-failed: no answer in 2 s (3 tries)"
    assert all(by_key[key].caption == key for key in keys if key not in failures)
    num_asked = {key: sum(one["key"] == key for one in server.asked) for key in keys}
    assert num_asked == dict(zip(keys, (1, 2, 3, 3, 3, 2, 2, 2), strict=True))
    assert engine.retries == {"http-500": 5, "timeout": 2, "malformed": 3}


def test_hang_ups_cost_tries_and_the_one_that_causes_them_fails_alone() -> None:
    def behave(handler: Handler, key: str, number: int) -> None:
        if key == "poison":
            time.sleep(0.1)
            handler.hang_up()
        elif number == 0:
            handler.hang_up(in_the_middle=True)
        else:
            handler.caption(key)

    with ChatServer(behave) as server:
        answers, engine = ask(settings(server), "a", "poison", "b")
    assert [answer.caption for answer in answers] == ["a", "", "b"]
    assert answers[1].failure is not None
    assert answers[1].failure.startswith("server-failed: ") and "3 tries" in answers[1].failure
    assert engine.retries == {"connection": 4}


def test_a_prompt_that_is_too_long_is_refused_and_no_other() -> None:
    message = "This model's maximum context length is 64 tokens"

    def behave(handler: Handler, key: str, number: int) -> None:
        handler.refuse(400, message) if key == "long" else handler.caption(key)

    with ChatServer(behave) as server:
        answers, _ = ask(settings(server), "long", "short")
        assert len(server.asked) == 2
    assert answers[0].failure is not None
    assert answers[0].failure.startswith("prompt-refused: BadRequestError: ")
    assert message in answers[0].failure
    assert answers[1].caption == "short"


def test_what_a_server_may_say_instead_of_a_caption() -> None:
    def behave(handler: Handler, key: str, number: int) -> None:
        if key == "refusal":
            said = completion("")
            said["choices"][0]["message"] = {"role": "assistant", "refusal": "I will not."}
            handler.reply(200, said)
        else:
            handler.reply(200, completion(" cut ", key))

    with ChatServer(behave) as server:
        answers, _ = ask(settings(server), "length", "content_filter", "refusal")
    assert answers[0] == CaptionAnswer("cut", num_tokens=3, finish_reason="length")
    assert answers[1].failure == "server-failed: finish reason content_filter"
    assert answers[2].failure == "prompt-refused: I will not."


def test_a_model_that_sees_no_images_ends_the_run() -> None:
    said = pytest.raises(UserError, match=r"refuses every request.*not a multimodal model")
    with ChatServer(refusing(400, "not a multimodal model")) as server, said:
        ask(settings(server), *map(str, range(16)))


def test_a_key_comes_from_the_environment_and_is_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "sk-not-for-logs"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")

    def behave(handler: Handler, asked: str, number: int) -> None:
        if handler.headers["Authorization"] == f"Bearer {key}":
            handler.refuse(400, f"{key} is yours") if asked == "b" else handler.caption(asked)
        else:
            handler.refuse(401, f"{handler.headers['Authorization']} is wrong")

    with ChatServer(behave) as server:
        config = settings(server, api_key_variable="CANOPY_TEST_KEY")
        with pytest.raises(UserError, match="names no variable that is set") as missing:
            ask(config, "a")
        assert "CANOPY_TEST_KEY" not in str(missing.value)
        monkeypatch.setenv("CANOPY_TEST_KEY", key)
        answers, _ = ask(config, "a", "b")
        assert answers[0].caption == "a"
        assert "*** is yours" in str(answers[1].failure) and key not in str(answers[1].failure)
        assert len(server.asked) == 2
        monkeypatch.setenv("CANOPY_TEST_KEY", "sk-wrong")
        with pytest.raises(UserError, match=r"refuses the key.*\*\*\* is wrong"):
            ask(config, "a")
        with pytest.raises(UserError, match="Bearer none is wrong"):  # not OPENAI_API_KEY
            ask(settings(server), "a")
        assert len(server.asked) == 4, "a key that is refused is not tried again"


def test_a_model_that_is_not_there_ends_the_run() -> None:
    with ChatServer(models=("a", "b")) as server:
        with pytest.raises(UserError, match=r"lists as models: a, b; give one as engine.server"):
            ask(settings(server), "k")
        with pytest.raises(UserError, match=r"has no 'c', but a, b"):
            ask(settings(server, model="c"), "k")
        assert ask(settings(server, model="b"), "k")[0][0].caption
        assert server.asked[0]["body"]["model"] == "b"
    said = pytest.raises(UserError, match=r"no chat with 'some/model'.*ends in /v1")
    with ChatServer(refusing(404, "no such model")) as server, said:
        ask(settings(server), "k")


def test_used_up_credit_or_a_long_rest_end_the_run() -> None:
    said = pytest.raises(UserError, match="pay")
    with ChatServer(refusing(429, "pay", "insufficient_quota")) as server, said:
        ask(settings(server), "k")
    said = pytest.raises(UserError, match="asks to wait for 3600 s")
    with ChatServer(refusing(429, Retry_After="3600")) as server, said:
        ask(settings(server), "k")


def test_a_server_that_is_gone_is_waited_for_without_using_up_tries() -> None:
    with ChatServer() as server:
        port = server.server_address[1]
        config = settings(server, num_tries=1)

    async def meanwhile() -> tuple[CaptionAnswer, float]:
        engine = ServerEngine(config, PROMPTS)
        with ChatServer(port=port):
            await engine.start()
        started = time.monotonic()
        asked = asyncio.create_task(engine.answer(CaptionRequest("a", "long", "a", IMAGE)))
        await asyncio.sleep(1)
        assert not asked.done()
        with ChatServer(port=port):
            async with asyncio.timeout(30):
                answer = await asked
        await engine.close()
        return answer, time.monotonic() - started

    answer, seconds = asyncio.run(meanwhile())
    assert answer.caption == "Caption of a." and seconds > 1


def test_patience_ends() -> None:
    with ChatServer() as server:
        gone = settings(server, patience=0.5)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no server at http://127.0.0.1:\d+/v1 for 0 s .*start it"):
        ask(gone, "a")
    assert 0.5 < time.monotonic() - started < 10


def test_several_servers_share_and_one_that_is_away_is_left_out() -> None:
    def slowly(handler: Handler, key: str, number: int) -> None:
        time.sleep(0.05)
        handler.caption(key)

    with ChatServer() as gone:
        pass
    with ChatServer(slowly) as first, ChatServer(slowly) as second:
        keys = [str(number) for number in range(20)]
        config = settings(gone, first, second, model="some/model")
        answers, _ = ask(config, *keys, num_servers=2)
    assert [answer.caption for answer in answers] == keys
    assert len(first.asked) + len(second.asked) == 20
    assert min(len(first.asked), len(second.asked)) >= 8


def test_the_origin_is_what_the_user_states() -> None:
    with ChatServer() as server:
        (asked,) = server_origins(settings(server), PROMPTS, ImageConfig())
    stated = ServerConfig(url=["http://nowhere:1/v1"], model="some/model")
    config = EngineConfig(name="server", server=stated)
    (origin,) = caption_origins(config, PROMPTS, ImageConfig())  # nobody is asked
    assert origin == asked
    assert (origin.prompt_id, origin.model, origin.model_revision) == ("long", "some/model", "")
    hot = {"long": PromptConfig(sampling=SamplingConfig(temperature=1.0))}
    others = [
        server_origins(replace(stated, revision="v2"), PROMPTS, ImageConfig()),
        server_origins(replace(stated, image_quality=50), PROMPTS, ImageConfig()),
        server_origins(replace(stated, image_format="png"), PROMPTS, ImageConfig()),
        server_origins(replace(stated, model="other"), PROMPTS, ImageConfig()),
        server_origins(stated, hot, ImageConfig()),
        server_origins(stated, PROMPTS, ImageConfig(max_side=9)),
    ]
    assert len({origin.sampling_hash, *(other.sampling_hash for (other,) in others)}) == 7
    faster = replace(stated, max_in_flight=3, num_tries=2, url="http://elsewhere:1/v1")
    assert server_origins(faster, PROMPTS, ImageConfig()) == [origin]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("url=localhost:8000", "no URL such as"),
        ("url=http://me:secret@host/v1", "take user and password out"),
        ("url=[]", "name a server"),
        ("api_key_variable=sk-1234", "never the key itself"),
        ("image_format=gif", "choose png or jpeg"),
        ("image_quality=101", "at most 100"),
        ("num_tries=0", "at least 1"),
        ("max_in_flight=2000", "at most 1000"),
    ],
)
def test_settings_that_cannot_be(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(RunConfig, ["input=i", "output=o", f"engine.server.{argument}"])
    assert "secret" not in str(error.value) and "sk-1234" not in str(error.value)


def test_one_url_or_several() -> None:
    arguments = ["input=i", "output=o", "engine.server.url=[http://a/v1,http://b/v1]"]
    assert load_config(RunConfig, arguments).engine.server.urls == ["http://a/v1", "http://b/v1"]
    assert ServerConfig(url="http://a/v1").urls == ["http://a/v1"]


def test_a_picture_too_long_for_jpeg_becomes_a_png() -> None:
    encoding = ImageEncoding("jpeg", 90)
    assert encoding.encode(IMAGE).data_url.startswith("data:image/jpeg;base64,")
    long = Image.new("RGB", (70_000, 1))
    assert encoding.encode(long).data_url.startswith("data:image/png;base64,")
