"""Makes spoofs with the text-to-speech programs that are installed: espeak-ng and flite.

    python train/text_to_speech.py --count 400 --out spoken/
    python train/text_to_speech.py --engine espeak-ng --language de --texts saetze.txt --out gesprochen/
    python train/fit.py --config FILE --audio DIR --more spoken/ --out RUN

Each clip says one to three sentences in a voice, at a speed and a pitch that are drawn from the seed and the
clip's number alone. Formants (espeak-ng), diphones and statistical voices (flite) are systems of yesterday:
easy to hear, and other than those of today, so a few per cent of the spoofs are enough. The folder holds
FLAC files without the silence around the speech, which would give them away, and a manifest.tsv. A run that
was stopped goes on with --resume.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from antispoof.audio import load_audio
from antispoof.channel import trim_silence
from antispoof.errors import UserError, run
from antispoof.outputs import make_folder
from antispoof.protocols import SPOOF
from antispoof.text_tables import text_lines
from train.made_clips import write_clip, write_list
from train.program import output_of, write_by_program
from train.sentences import SENTENCES

COLUMNS = ("path", "label", "split", "dataset", "attack", "source", "licence")
ENGLISH = "en"
MOST_SENTENCES = 3
SPEEDS_WPM = (130, 210)
PITCHES = (20, 80)  # of espeak-ng's 0 to 99
STRETCHES = (0.8, 1.25)  # of flite's durations
VARIANT_SHARE = 0.7  # of espeak-ng's clips, whose voice is changed by one of its variants
NOT_FLITE = ("kal", "awb_time")  # at 8 kHz, which would give them away, and made for telling the time


@dataclass(frozen=True)
class Engine:
    """A program that reads texts aloud.

    Attributes:
        voices: Returns the voices that it has for a language.
        command: Returns what makes a voice read a file of text into a WAV file, as a generator draws it.
        licence: Of the program, for the list.
    """

    voices: Callable[[str], list[str]]
    command: Callable[[str, Path, Path, np.random.Generator], list[str]]
    licence: str


@lru_cache
def _voices_of_espeak(language: str) -> list[str]:
    lines = output_of(["espeak-ng", f"--voices={language}"]).splitlines()[1:]
    files = [line.split()[4] for line in lines]
    # MBROLA's voices are listed whether they are there or not.
    return [Path(file).name for file in files if not file.startswith("mb/")]


def _espeak(voice: str, text: Path, made: Path, generator: np.random.Generator) -> list[str]:
    variants = _voices_of_espeak("variant")
    if variants and generator.random() < VARIANT_SHARE:
        voice = f"{voice}+{generator.choice(variants)}"
    speed, pitch = (str(generator.integers(*limits, endpoint=True)) for limits in (SPEEDS_WPM, PITCHES))
    return ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-f", str(text), "-w", str(made)]


def _voices_of_flite(language: str) -> list[str]:
    if language != ENGLISH:
        return []
    _, _, names = output_of(["flite", "-lv"]).partition(":")
    return [name for name in names.split() if name not in NOT_FLITE]


def _flite(voice: str, text: Path, made: Path, generator: np.random.Generator) -> list[str]:
    stretch = f"duration_stretch={generator.uniform(*STRETCHES):.3f}"
    return ["flite", "-voice", voice, "--setf", stretch, "-f", str(text), "-o", str(made)]


ENGINES = {
    "espeak-ng": Engine(_voices_of_espeak, _espeak, "spoken by eSpeak NG (GPL-3.0)"),
    "flite": Engine(_voices_of_flite, _flite, "spoken by Flite (BSD-like)"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = _parser().parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count must be at least 1, not {args.count}")
    if args.out.is_dir() and any(args.out.iterdir()) and not args.resume:
        raise UserError(f"{args.out} is not empty; --resume goes on with it")
    voices = find_voices(args.engine, args.language)
    texts = read_texts(args.texts, args.language)
    make_folder(args.out)
    lines = []
    for number in tqdm(range(args.count), desc="speaking", unit="clip", disable=None):
        generator = np.random.default_rng([args.seed, number])
        engine = str(generator.choice(sorted(voices)))
        voice = str(generator.choice(voices[engine]))
        # By all that the list says of it: what another seed or other voices left is never taken for it.
        path = args.out / f"{args.seed}.{number:06d}.{engine}.{voice}.flac"
        if not path.exists():
            speak(engine, voice, texts, path, generator)
        known = {"label": SPOOF, "split": "train", "source": "", "licence": ENGINES[engine].licence}
        dataset, attack = f"text-to-speech by {engine}", f"{engine} {voice}"
        lines.append({**known, "path": path.name, "dataset": dataset, "attack": attack})
    listed = write_list(args.out, COLUMNS, lines)
    print(f"{args.count} clips by {' and '.join(sorted(voices))}: {listed}")
    return 0


def find_voices(engines: Sequence[str], language: str) -> dict[str, list[str]]:
    """Returns the voices of each engine that has any for a language.

    Args:
        engines: Which to look for; none means all that are installed.
        language: As espeak-ng calls it.

    Raises:
        UserError: One that is named is not installed or has no such voice, or none is there at all.
    """
    voices = {}
    for engine in engines or ENGINES:
        found = ENGINES[engine].voices(language) if shutil.which(engine) else None
        if found:
            voices[engine] = found
        elif engines:
            lacks = f"has no voice for {language!r}" if found is not None else "is not installed"
            raise UserError(f"{engine} {lacks}")
    if not voices:
        raise UserError(f"no text-to-speech for {language!r} is installed: install {' or '.join(ENGINES)}")
    return voices


def read_texts(path: Path | None, language: str) -> Sequence[str]:
    """Returns the sentences to speak, one from each line of a file that is not empty.

    Raises:
        UserError: The file cannot be read or is empty, or there is none for another language than English.
    """
    if path is None:
        if language.split("-")[0] != ENGLISH:
            raise UserError(f"give --texts: what is spoken without them is English, not {language!r}")
        return SENTENCES
    texts = [line.strip() for _, line in text_lines(path) if line.strip()]
    if not texts:
        raise UserError(f"{path} holds no text")
    return texts


def speak(engine: str, voice: str, texts: Sequence[str], path: Path, generator: np.random.Generator) -> None:
    """Writes one clip at 16 kHz.

    Raises:
        UserError: The program fails, or what it wrote is no speech.
    """
    with tempfile.TemporaryDirectory() as folder:
        text, made = Path(folder) / "text.txt", Path(folder) / "speech.wav"
        sentences = min(len(texts), int(generator.integers(1, MOST_SENTENCES + 1)))
        said = generator.choice(len(texts), sentences, replace=False)
        text.write_text(" ".join(texts[index] for index in said) + "\n", encoding="utf-8")
        write_by_program(ENGINES[engine].command(voice, text, made, generator), made)
        write_clip(path, trim_silence(load_audio(made)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="text_to_speech.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--count", type=int, default=400, help="clips (default: %(default)s)")
    parser.add_argument(
        "--engine",
        action="append",
        choices=sorted(ENGINES),
        default=[],
        help="may be repeated (default: all that are installed)",
    )
    parser.add_argument("--language", default=ENGLISH, help="as espeak-ng calls it (default: %(default)s)")
    parser.add_argument("--texts", type=Path, help="a sentence a line (default: some in English)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on with the clips in --out")
    return parser


if __name__ == "__main__":
    run(main)
