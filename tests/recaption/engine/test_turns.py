import asyncio

from recaption.engine.turns import Turns


def test_one_alone_waits_for_all_others_and_keeps_later_ones_out() -> None:
    events: list[str] = []

    async def together(turns: Turns, name: str, ready: asyncio.Event | None = None) -> None:
        async with turns.together():
            events.append(f"{name} begins")
            if ready is not None:
                await ready.wait()
            events.append(f"{name} ends")

    async def alone(turns: Turns, name: str) -> None:
        async with turns.alone():
            events.append(f"{name} begins")
            await asyncio.sleep(0)
            events.append(f"{name} ends")

    async def main() -> None:
        turns, ready = Turns(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(together(turns, "a", ready))
            await asyncio.sleep(0)
            group.create_task(alone(turns, "b"))
            group.create_task(alone(turns, "c"))
            await asyncio.sleep(0)
            group.create_task(together(turns, "d"))
            await asyncio.sleep(0)
            assert events == ["a begins"]
            ready.set()

    asyncio.run(main())
    begun = ["a begins", "a ends", "b begins", "b ends"]
    assert events[:4] == begun
    assert sorted(events[4:]) == ["c begins", "c ends", "d begins", "d ends"]
    assert events.index("c ends") == events.index("c begins") + 1


def test_a_turn_that_fails_is_given_back() -> None:
    async def main() -> None:
        turns = Turns()
        for turn in (turns.alone, turns.together, turns.alone):
            try:
                async with asyncio.timeout(5), turn():
                    raise ValueError
            except ValueError:
                pass

    asyncio.run(main())
