"""Work beside training: in order, and no error is lost."""

import copy
import threading

import pytest

from mulligan.training.background import Background


def test_jobs_run_in_order_while_the_caller_goes_on() -> None:
    background, go, done = Background(), threading.Event(), list[int]()

    def first() -> None:
        assert go.wait(10)
        done.append(1)

    background.then(first)
    background.then(lambda: done.append(2))
    assert done == []
    go.set()
    background.wait()
    assert done == [1, 2]


def test_an_error_is_raised_once_and_what_stands_behind_it_is_left_out() -> None:
    background, done = Background(), list[int]()

    def fail() -> None:
        raise OSError("the disk is full")

    background.then(fail)
    background.then(lambda: done.append(2))
    with pytest.raises(OSError, match="the disk is full"):
        background.wait()
    assert done == []
    background.then(lambda: done.append(3))
    background.wait()
    assert done == [3]


def test_it_can_be_copied_while_there_is_no_job() -> None:
    background, done = Background(), list[int]()
    background.then(lambda: done.append(1))
    background.wait()
    other = copy.deepcopy(background)
    other.then(lambda: done.append(2))
    other.wait()
    assert done == [1, 2]
