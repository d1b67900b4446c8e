"""An edit is the same to the last bit on one thread and on two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model
from redediting.threads import all_threads, one_thread
from redediting.world import load


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> Model:
    return load()


def test_threads_are_given_back() -> None:
    torch.set_num_threads(2)
    with all_threads():
        assert torch.get_num_threads() == 2
    with one_thread():
        assert torch.get_num_threads() == 1
        with all_threads():
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
        with one_thread(), all_threads():
            assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        raise RuntimeError("inside")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["eviledit", "uce", "redediting"])
def test_an_edit_does_not_depend_on_the_number_of_threads(world: Model, name: str) -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        patch = ATTACKS.make(name).compute(world, [Rebinding("beautiful cat", "zebra")])
        assert torch.get_num_threads() == threads
        found.append(patch.terms)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one.left, two.left)
        assert torch.equal(one.right, two.right)
