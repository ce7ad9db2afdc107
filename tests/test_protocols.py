"""The protocol readers on lines as the data sets have them, and on what users give by mistake."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antispoof.errors import UserError
from antispoof.protocols import LAYOUTS, Trial, iter_protocol, read_protocol, resolve_audio

Writer = Callable[[str | bytes], Path]

REAL: dict[str, tuple[str, list[Trial]]] = {
    "asvspoof2019": (
        "LA_0069 LA_D_1047731 - - bonafide\nPA_0079 PA_T_0005401 aaa AA spoof\n",
        [
            Trial("LA_D_1047731", "bonafide", speaker="LA_0069"),
            Trial("PA_T_0005401", "spoof", "AA", "PA_0079"),
        ],
    ),
    "asvspoof2021-la": (
        "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval\n"
        "LA_0007 LA_E_5013670 alaw ita_tx bonafide bonafide notrim progress\n",
        [
            Trial("LA_E_9332881", "spoof", "A07", "LA_0009", "eval"),
            Trial("LA_E_5013670", "bonafide", "-", "LA_0007", "progress"),
        ],
    ),
    "asvspoof2021-df": (
        "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
        "TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval "
        "neural_vocoder_nonautoregressive Task1 team20 FF E\n"
        "VCC2TM2 DF_E_2000053 mp3m4a vcc2018 - bonafide notrim eval bonafide - - - -\n",
        [
            Trial("DF_E_2000011", "spoof", "A14", "LA_0023", "progress"),
            Trial("DF_E_2000013", "spoof", "Task1-team20", "TEF2", "eval"),
            Trial("DF_E_2000053", "bonafide", "-", "VCC2TM2", "eval"),
        ],
    ),
    "asvspoof5": (
        "T_4850 T_0000000000 F - - - AC3 A05 spoof -\n"
        "T_3734 T_0000000011 F - - - - bonafide bonafide -\n"
        "E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -\n",
        [
            Trial("T_0000000000", "spoof", "A05", "T_4850"),
            Trial("T_0000000011", "bonafide", "-", "T_3734"),
            Trial("E_0009538969", "spoof", "A26", "E_1607"),
        ],
    ),
    "in-the-wild": (
        'file,speaker,label\n0.wav,Alec Guinness,spoof\n4.wav,"Hitchens, Christopher",bona-fide\n',
        [
            Trial("0", "spoof", "-", "Alec Guinness", path="0.wav"),
            Trial("4", "bonafide", "-", "Hitchens, Christopher", path="4.wav"),
        ],
    ),
    "tsv": (
        "path\tlabel\tsplit\tattack\tspeaker\tnote\n"
        "a/x.flac\tbonafide\tdev\t-\tanna\t\n"
        "b/x.flac\tspoof\ttest\tHiFi-GAN v1\t\tgood\n"
        "n.flac\tnoise\ttrain\t-\t-\t\n",
        [
            Trial("x", "bonafide", "-", "anna", "dev", "a/x.flac"),
            Trial("x", "spoof", "HiFi-GAN v1", "-", "test", "b/x.flac"),
        ],
    ),
}


@pytest.fixture
def protocol(tmp_path: Path) -> Writer:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "protocol.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_every_format_has_real_lines_here() -> None:
    assert set(REAL) == set(LAYOUTS)


@pytest.mark.parametrize("name", REAL)
def test_a_format_is_recognised_and_read(protocol: Writer, name: str) -> None:
    text, trials = REAL[name]
    path = protocol(text)
    assert read_protocol(path) == read_protocol(path, name) == trials


@pytest.mark.parametrize("name", REAL)
def test_a_format_is_not_taken_for_another(protocol: Writer, name: str) -> None:
    path = protocol(REAL[name][0])
    for other in set(LAYOUTS) - {name}:
        with pytest.raises(UserError, match=f":1: this line is not of the format {other}"):
            read_protocol(path, other)


@pytest.mark.parametrize("name", REAL)
def test_windows_line_ends_a_byte_order_mark_and_blank_lines_do_no_harm(protocol: Writer, name: str) -> None:
    text, trials = REAL[name]
    path = protocol(b"\xef\xbb\xbf" + text.replace("\n", "\r\n\r\n").encode())
    assert read_protocol(path) == trials


def test_the_official_2019_lists_have_their_published_counts(shared: Path) -> None:
    counts = {"train.trn": (2_580, 22_800), "dev.trl": (2_548, 22_296), "eval.trl": (7_355, 63_882)}
    for part, (bonafide, spoof) in counts.items():
        trials = read_protocol(shared / "oracles" / f"ASVspoof2019.LA.cm.{part}.txt")
        assert Counter(trial.label for trial in trials) == {"bonafide": bonafide, "spoof": spoof}
        assert all((trial.attack == "-") == (trial.label == "bonafide") for trial in trials)


def test_the_shared_manifest_is_read_by_split_without_its_noise(shared: Path) -> None:
    manifest = shared / "audio" / "manifest.tsv"
    trials = read_protocol(manifest, split="dev")
    assert Counter(trial.label for trial in trials) == {"bonafide": 50, "spoof": 50}
    assert all(resolve_audio(trial, manifest.parent).is_file() for trial in trials)
    assert not any(trial.path and trial.path.startswith("free/noise") for trial in iter_protocol(manifest))


def test_the_split_of_a_2021_key_chooses_its_trials(protocol: Writer) -> None:
    path = protocol(REAL["asvspoof2021-la"][0])
    assert [trial.utterance for trial in read_protocol(path, split="eval")] == ["LA_E_9332881"]
    with pytest.raises(UserError, match="no trial in the split 'dev'; there are eval, progress"):
        read_protocol(path, split="dev")


def test_a_split_of_a_list_without_splits_is_refused(protocol: Writer) -> None:
    with pytest.raises(UserError, match="this list is not divided"):
        read_protocol(protocol(REAL["asvspoof2019"][0]), split="dev")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "lists no trial"),
        ("\n \n", "lists no trial"),
        ("path\tlabel\n", "lists no trial"),
        ("path\tlabel\nn.wav\tnoise\n", "lists no trial"),
        ("what is this\n", ":1: this line is not of the format"),
        ("LA_E_1 A07 spoof -1.5\n", ":1: this is a score file"),
        ("LA_E_9332881\nLA_E_6866159\n", ":1: this list names trials without labels"),  # ASVspoof 2021's .trl
        ("0.wav,spoof\n", ":1: this line is not of the format"),
        ("S U1 - - bonafide\nS U1 - - bonafide\n", ":2: U1 is listed a second time"),
        ("S U1 - - bonafide\nS U2 - bonafide\n", ":2: 4 columns where asvspoof2019 has 5"),
        ("S U1 - - bonafide\nS U2 - - fake\n", ":2: the label 'fake'"),
        ("S U1 - - bonafide\nS U2 - - noise\n", ":2: the label 'noise'"),
        ("path\tlabel\na\tbonafide\tmore\n", ":2: 3 columns where tsv has 2"),
        ("path\tlabel\n\tbonafide\n", ":2: the trial has no name"),
        ("path\tlabel\tlabel\na\tspoof\tspoof\n", ":1: the column 'label' stands in the header twice"),
        ('file,speaker,label\n0.wav,"open,spoof\n', ":2: it is not CSV"),
        ("path\tlabel\tx\ty\tspoof\n", "could be any of asvspoof2019, tsv"),
        (b"S U1 - - bonafide\nS U\xff - - spoof\n", ":2: this line is not UTF-8"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", ":1: this is not a text file"),
        (b"\x1f\x8b\x08\x00", ":1: this is not a text file"),
        (b"S U1 - - bonafide\rS U2 - - spoof\r", ":1: this is not a text file"),
        (b"x" * 100_000, ":1: this is not a text file"),
    ],
)
def test_a_malformed_list_gets_one_sentence_with_its_line(
    protocol: Writer, content: str | bytes, says: str
) -> None:
    path = protocol(content)
    with pytest.raises(UserError, match=says) as caught:
        read_protocol(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_cannot_be_opened_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        read_protocol(tmp_path / "absent.txt")
    with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
        read_protocol(tmp_path)


def test_an_unknown_format_lists_the_known_ones(protocol: Writer) -> None:
    with pytest.raises(UserError, match="no protocol format 'kaldi'; there are asvspoof2019, "):
        read_protocol(protocol("x"), "kaldi")


def test_a_long_list_is_read_as_it_is_used(protocol: Writer) -> None:
    path = protocol("S U1 - - bonafide\n" + "broken\n" * 3)
    trials = iter_protocol(path)
    assert next(trials).utterance == "U1"  # before the broken line is reached
    with pytest.raises(UserError, match=":2: "):
        next(trials)


def read_or_refuse(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzz"
        path.write_bytes(content)
        try:
            trials = read_protocol(path)
        except UserError as error:
            assert str(error)  # noqa: PT017 (either outcome is right)
        else:
            assert trials
            assert all(trial.label in ("bonafide", "spoof") and trial.utterance for trial in trials)


@given(st.binary(max_size=200))
def test_any_bytes_are_trials_or_one_sentence(content: bytes) -> None:
    read_or_refuse(content)


WORDS = [
    "bonafide",
    "spoof",
    "noise",
    "bona-fide",
    "-",
    "A07",
    "U1",
    "U2",
    "path",
    "label",
    "file",
    "speaker",
]
MARKS = ["\t", "\t", " ", " ", ",", "\n", "\n", '"', "\r", "\x85", "é", "../x.wav"]
LINES = ["path\tlabel\n", "file,speaker,label\n", "S U3 - A07 spoof\n"]
pieces = st.sampled_from([*WORDS, *MARKS, *LINES])


@settings(max_examples=300)
@given(st.lists(pieces, max_size=30).map("".join))
def test_any_near_miss_is_trials_or_one_sentence(content: str) -> None:
    read_or_refuse(content.encode())


# Where the audio is


def test_audio_is_found_by_id_or_by_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("LA_E_1.flac", "LA_E_2.wav", "sub/x.mp3"):
        (tmp_path / name).touch()
    assert resolve_audio(Trial("LA_E_1", "spoof"), tmp_path) == tmp_path / "LA_E_1.flac"
    assert resolve_audio(Trial("LA_E_2", "spoof"), str(tmp_path)) == tmp_path / "LA_E_2.wav"
    assert resolve_audio(Trial("x", "spoof", path="sub/x.mp3"), tmp_path) == tmp_path / "sub" / "x.mp3"
    with pytest.raises(UserError, match=r"looked for LA_E_3\.flac and LA_E_3\.wav"):
        resolve_audio(Trial("LA_E_3", "spoof"), tmp_path)


@pytest.mark.parametrize(
    "path", ["../secret.wav", "a/../../secret.wav", "/etc/passwd", "..\\secret.wav", "C:\\x"]
)
def test_a_list_cannot_reach_outside_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.wav").touch()
    (tmp_path / "audio" / "a").mkdir(parents=True)
    for trial in (Trial("x", "spoof", path=path), Trial(path, "spoof")):
        with pytest.raises(UserError, match="points outside the audio folder"):
            resolve_audio(trial, tmp_path / "audio")


@pytest.mark.skipif(os.name != "posix", reason="the limit on a file's name is the system's")
def test_a_name_that_no_file_can_have_is_merely_not_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no audio for"):
        resolve_audio(Trial("u" * 5_000, "spoof"), tmp_path)
