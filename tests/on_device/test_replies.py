"""What adb, phones and runners print is read in every form, and noise is never taken for a result."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antispoof.errors import UserError
from benchmarks.devices import adb, android, ios
from benchmarks.devices.runs import parse_answer


def test_devices_are_read_in_every_state() -> None:
    text = "List of devices attached\nA1\tdevice\nB2\toffline\nC3\tunauthorized\n\n"
    assert adb.parse_devices(text) == {"A1": "device", "B2": "offline", "C3": "unauthorized"}
    assert adb.parse_devices("* daemon not running; starting now\nList of devices attached\n") == {}


@pytest.mark.parametrize(
    ("cores", "mask"),
    [("big", 0b1100_0000), ("little", 0b0000_1111), ("all", None), ("0", 1), ("1-2,4", 0b1_0110)],
)
def test_cores_become_a_mask(cores: str, mask: int | None) -> None:
    text = "\n".join(
        f"/sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq:{khz}"
        for i, khz in enumerate([1_800_000] * 4 + [2_400_000] * 2 + [2_900_000] * 2)
    )
    assert android.core_mask(cores, android.max_frequencies(text)) == mask


def test_where_all_cores_are_alike_nothing_is_pinned() -> None:
    assert android.core_mask("big", {0: 2_000_000, 1: 2_000_000}) is None
    with pytest.raises(UserError, match="--cores"):
        android.core_mask("fast", {})


GOOD = {
    "runner": "r",
    "library": "l",
    "scores": [1.5],
    "load_ms": 1,
    "first_ms": 2,
    "times_ms": [3, 4],
    "peak_rss_kib": 5,
}


@pytest.mark.parametrize(
    "change",
    [
        {"times_ms": [3]},
        {"scores": []},
        {"times_ms": [3, -1]},
        {"load_ms": "soon"},
        {"times_ms": [3, float("inf")]},
    ],
)
def test_answers_that_are_no_answers_are_refused(change: dict[str, Any]) -> None:
    assert parse_answer(json.dumps(GOOD), 1, 2).times_ms == (3, 4)
    with pytest.raises(UserError, match="the runner printed"):
        parse_answer(json.dumps(GOOD | change), 1, 2)


@settings(max_examples=40, deadline=None)
@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_noise_is_never_taken_for_a_result(text: str) -> None:
    with pytest.raises(UserError):
        parse_answer(text, 1, 2)
    with pytest.raises(UserError):
        ios.parse_console(text, 1, 2)
    with pytest.raises(UserError):
        ios.parse_phones(text)
    android.parse_battery(text)
    android.max_frequencies(text)
    adb.parse_devices(text)


# Made by hand in the form that devicectl documents: no Mac was at hand.
PHONES = json.dumps(
    {
        "result": {
            "devices": [
                {
                    "identifier": "AAAA-1",
                    "connectionProperties": {"pairingState": state},
                    "deviceProperties": {"name": name, "osVersionNumber": "17.5"},
                    "hardwareProperties": {"marketingName": "iPhone 15", "productType": "iPhone15,4"},
                }
                for name, state in (("mine", "paired"), ("a stranger's", "unpaired"))
            ]
        }
    }
)


def test_only_paired_phones_are_used() -> None:
    phones = ios.parse_phones(PHONES)
    assert [phone.name for phone in phones] == ["mine"]
    assert ios.choose_phone(phones, None).product == "iPhone15,4"
    with pytest.raises(UserError, match="mine"):
        ios.choose_phone(phones, "yours")


def test_the_console_of_a_phone_is_read() -> None:
    text = f"Launched application\n{ios.MARK} {json.dumps(GOOD)}\nANTISPOOF-THERMAL serious\n"
    assert ios.parse_console(text, 1, 2).first_ms == 2
    assert ios.parse_thermal(text) == 2
    assert ios.parse_thermal("nothing") is None
    with pytest.raises(UserError, match="2 results"):
        ios.parse_console(text + text, 1, 2)
