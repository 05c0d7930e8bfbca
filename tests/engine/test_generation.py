"""Writing text with a causal model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from warmstart.core.errors import BadOption, DataError
from warmstart.engine import causal, generation, store, vocabulary
from warmstart.engine.corpus import Texts
from warmstart.engine.generation import Generated, Sampling

TEXT = "the cat sees the dog. the dog hears caf\u00e9 music."


def _writer(kind: Any = "characters", *, cache: bool = True, context: int = 16) -> generation.Writer:
    tokenizer = vocabulary.train(Texts([TEXT], whole=True), kind=kind, size=300)
    end = tokenizer.token_to_id(vocabulary.END)
    config = causal.configuration(vocabulary=tokenizer.get_vocab_size(), width=16, depth=2, heads=2, context=context, end=end)
    model = causal.create(config, seed=0)
    torch.manual_seed(2)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return generation.Writer(model, tokenizer, context=context, end=end, cache=cache)


def test_the_cache_changes_nothing_also_beyond_the_context() -> None:
    greedy = Sampling(temperature=0, max_tokens=40)
    for prompt in ("the", TEXT[:30], ""):
        cached, plain = (_writer(cache=cache).write(prompt, greedy) for cache in (True, False))
        assert cached == plain
        assert cached.tokens == 40 or cached.stopped == "end"
    assert "last of them" in _writer().write(TEXT[:30], greedy).notes[0]


def test_greedy_is_the_likeliest_token_of_transformers() -> None:
    writer = _writer()
    ids = writer.tokenizer.encode("the ").ids
    expected = []
    for _ in range(6):
        with torch.no_grad():
            expected.append(int(writer.model(input_ids=torch.tensor([ids + expected])).logits[0, -1].argmax()))
    found = writer.write("the ", Sampling(temperature=0, max_tokens=6))
    assert found.text == writer.tokenizer.decode(expected)


def test_seeds_and_pieces() -> None:
    writer = _writer()
    done = Generated("the")
    pieces = list(writer.stream("the", Sampling(seed=3, max_tokens=30), done))
    assert "".join(pieces) == done.text == writer.write("the", Sampling(seed=3, max_tokens=30)).text
    assert len(pieces) > 5
    assert writer.write("the", Sampling(seed=4, max_tokens=30)).text != done.text


def test_it_stops_at_the_end_of_the_text() -> None:
    writer = _writer()
    writer.model.get_output_embeddings().weight.data[:] = 0  # all tokens alike: the likeliest is the first, the end mark
    done = writer.write("the", Sampling(temperature=0))
    assert (done.text, done.tokens, done.stopped) == ("", 0, "end")


def test_unknown_characters_are_named_and_bytes_never_unknown() -> None:
    with pytest.raises(DataError, match="2 places of the prompt: 'Z'"):
        _writer().write("Z the Z", Sampling())
    assert _writer("bpe").write("Z \u4f60", Sampling(max_tokens=3)).tokens <= 3


def test_characters_of_several_bytes_come_whole() -> None:
    writer = _writer("bpe")
    ids = writer.tokenizer.encode("\u4f60\u00e9").ids
    assert len(ids) > 3
    writer._tokens = lambda *_: iter(ids)  # type: ignore[method-assign]
    done = Generated("x")
    pieces = list(writer.stream("x", Sampling(), done))
    assert all("\ufffd" not in piece for piece in pieces)
    assert done.text == "\u4f60\u00e9"


def test_what_is_drawn() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    random = torch.Generator().manual_seed(0)

    def seen(sampling: Sampling) -> set[int]:
        return {generation.pick(logits, sampling, random) for _ in range(200)}

    assert seen(Sampling(temperature=1.0)) == {0, 1, 2, 3}
    assert seen(Sampling(temperature=0)) == {0}
    assert seen(Sampling(temperature=1.0, top_k=2)) == {0, 1}
    assert seen(Sampling(temperature=1.0, top_p=0.6)) == {0, 1}
    assert seen(Sampling(temperature=1.0, top_p=0.01)) == {0}
    assert seen(Sampling(temperature=0.01)) == {0}


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 1.5}, {"max_tokens": 0}])
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(wrong)).replace("_", "-")):
        Sampling(**wrong)


def test_a_folder_writes_what_its_model_writes(tmp_path: Path) -> None:
    writer = _writer()
    store.save_transformers(writer.model, tmp_path)
    vocabulary.save(writer.tokenizer, tmp_path, max_length=16)
    sampling = Sampling(max_tokens=20, seed=1)
    assert generation.generate(tmp_path, "the cat", sampling=sampling) == writer.write("the cat", sampling).text


def test_an_empty_prompt_needs_a_token_that_begins_a_text() -> None:
    writer = _writer()
    assert writer.write("", Sampling(max_tokens=3)).prompt == ""
    writer.end = None
    with pytest.raises(DataError, match="the prompt is empty, and this vocabulary has no token that begins a text"):
        writer.write("", Sampling(max_tokens=3))
