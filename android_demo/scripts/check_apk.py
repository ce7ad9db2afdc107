"""Says whether an APK is what it should be, and how large each part of it is.

    python3 android_demo/scripts/check_apk.py APK ANDROID.JAR

Asserts: the microphone is the one permission; Android 7 and up; a library of ours and ONNX Runtime for each
processor, with segments and zip offsets of 16 KB; signed by schemes v2 and v3; a detector inside; and every
class, method and field that the code uses and does not bring exists in Android 6. Exits with 1 at the first
that fails.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

PAGE = 16_384
ABIS = {"arm64-v8a", "armeabi-v7a", "x86_64"}
LIBRARIES = {"libantispoof.so", "libonnxruntime.so"}
LOAD = 1  # type of an ELF segment
LOCAL_HEADER = "<26xHH"
CLASSES_AT_ONCE = 200


def require(condition: bool, what: str) -> None:
    """Ends the check where a condition does not hold."""
    if not condition:
        sys.exit(f"the APK is wrong: {what}")


def output(*command: str) -> str:
    """Returns what a tool prints; ends the check where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{command[0]}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def check_manifest(apk: str) -> None:
    """Permissions, versions of Android, and what is started."""
    badging = output("aapt", "dump", "badging", apk)
    permissions = re.findall(r"^uses-permission\S*: name='([^']+)'", badging, re.MULTILINE)
    require(permissions == ["android.permission.RECORD_AUDIO"], f"it asks for {permissions}")
    require("sdkVersion:'24'" in badging, "it is not for Android 7 and up")
    require("targetSdkVersion:'34'" in badging, "it is not made for Android 14")
    require("launchable-activity: name='io.antispoof.demo.MainActivity'" in badging, "nothing can be started")
    require("application-debuggable" not in badging, "it can be debugged by anyone")
    native = re.search(r"^native-code: (.+)$", badging, re.MULTILINE)
    require(native is not None and set(re.findall(r"'([^']+)'", native[1])) == ABIS, "processors are missing")


def check_signature(apk: str) -> None:
    """Schemes v2 and v3, which Android 7 and 9 brought and which cover the whole file."""
    said = output("apksigner", "verify", "--verbose", "--min-sdk-version", "24", apk)
    for scheme in ("v2", "v3"):
        require(
            f"Verified using {scheme} scheme (APK Signature Scheme {scheme}): true" in said, f"no {scheme}"
        )


def segments(library: bytes) -> Iterator[int]:
    """Yields how the segments of an ELF file that are loaded are aligned."""
    wide = library[4] == 2
    where, entry_size, count = (
        (struct.unpack_from("<Q", library, 32)[0], *struct.unpack_from("<HH", library, 54))
        if wide
        else (struct.unpack_from("<I", library, 28)[0], *struct.unpack_from("<HH", library, 42))
    )
    for i in range(count):
        at = where + i * entry_size
        if struct.unpack_from("<I", library, at)[0] == LOAD:
            yield (
                struct.unpack_from("<Q", library, at + 48)[0]
                if wide
                else struct.unpack_from("<I", library, at + 28)[0]
            )


def check_libraries(apk: zipfile.ZipFile) -> None:
    """Each processor's two libraries, stored, aligned in the file and in themselves."""
    assert apk.filename is not None
    output("zipalign", "-c", "-p", "4", apk.filename)
    found = {name for name in apk.namelist() if name.startswith("lib/")}
    require(
        found == {f"lib/{abi}/{name}" for abi in ABIS for name in LIBRARIES}, f"its libraries are {found}"
    )
    for name in sorted(found):
        info = apk.getinfo(name)
        require(info.compress_type == zipfile.ZIP_STORED, f"{name} is compressed")
        assert apk.fp is not None
        apk.fp.seek(info.header_offset)
        name_length, extra_length = struct.unpack(LOCAL_HEADER, apk.fp.read(30))
        begin = info.header_offset + 30 + name_length + extra_length
        require(begin % PAGE == 0, f"{name} begins at {begin}")
        require(
            all(alignment % PAGE == 0 for alignment in segments(apk.read(name))), f"{name} has small pages"
        )


def check_detector(apk: zipfile.ZipFile) -> None:
    """A detector with everything that the app will ask for."""
    names = {name.removeprefix("assets/detector/") for name in apk.namelist() if "assets/detector/" in name}
    model = next((name for name in sorted(names) if name.endswith(".onnx")), None)
    require(model is not None, "there is no .onnx file inside")
    needed = {
        f"{model}{end}" for end in (".manifest.json", ".manifest.json.sig", ".golden.json", ".golden.f32")
    }
    require(
        names >= needed | {"detector.json", "trusted-key.pub"},
        f"of the detector there is only {sorted(names)}",
    )


Members = dict[str, set[tuple[str, str]]]  # name and descriptor, by class
Parents = dict[str, set[str]]  # what a class extends and implements


def own_classes(disassembly: str) -> tuple[Members, Parents]:
    """Returns what the classes in a dex file declare, and what they extend and implement."""
    members: Members = {}
    parents: Parents = {}
    for block in disassembly.split("\n  Class descriptor  : 'L")[1:]:
        name = block.partition(";'")[0]
        # Among the code there are no lines of this form.
        found = re.findall(r"^ +name +: '([^']+)'\n +type +: '([^']+)'", block, re.MULTILINE)
        above = re.findall(r"^  Superclass +: 'L([^;]+);'|^    #\d+ +: 'L([^;]+);'$", block, re.MULTILINE)
        members[name] = set(found)
        parents[name] = {extended or implemented for extended, implemented in above}
    return members, parents


def used_members(disassembly: str) -> set[tuple[str, str, str]]:
    """Returns class, name and descriptor of every method and field that code in a dex file refers to."""
    calls = re.findall(r" invoke-\S+ \{[^}]*\}, L([\w/$]+);\.([\w<>$]+):(\(\S+) ", disassembly)
    fields = re.findall(r" [is](?:get|put)\S* (?:v\d+, )+L([\w/$]+);\.([\w$]+):(\S+) ", disassembly)
    return {*calls, *fields}


def android_classes(android: str, classes: set[str]) -> tuple[Members, Parents]:
    """Returns the same of classes in android.jar and all above them."""
    members: Members = {}
    parents: Parents = {}
    waiting = set(classes)
    while waiting:
        batch = sorted(waiting)[:CLASSES_AT_ONCE]
        waiting -= set(batch)
        names = (name.replace("/", ".") for name in batch)
        # Its own class library too, not this machine's. What is missing there is found missing below.
        command = ["javap", "-s", "-protected", "-bootclasspath", android, *names]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for block in re.split(r"^Compiled from .*\n", text, flags=re.MULTILINE):
            head = re.search(r"^(?:\w+ )*(?:class|interface) ([^{]+)\{$", block, re.MULTILINE)
            if head is None:
                continue
            name, *above = without_types(head[1]).replace(".", "/").replace(",", " ").split()
            parents[name] = set(above) - {"extends", "implements", name} | {"java/lang/Object"} - {name}
            found = re.findall(r"^  (.+);\n    descriptor: (\S+)$", block, re.MULTILINE)
            members[name] = {(declared_name(line, name), descriptor) for line, descriptor in found}
            waiting |= parents[name] - members.keys() - set(batch)
    return members, parents


def without_types(declaration: str) -> str:
    """Returns a declaration without its type parameters."""
    while "<" in declaration:
        declaration = re.sub(r"<[^<>]*>", "", declaration)
    return declaration


def declared_name(declaration: str, owner: str) -> str:
    """Returns the name of a member out of javap's line for it."""
    before = declaration.partition(" throws ")[0].partition("(")[0].partition(" = ")[0]
    name = before.split()[-1]
    return "<init>" if name.replace(".", "/") == owner else name


def check_code(apk: str, android: str) -> int:
    """Everything that the code uses exists in it or there; returns how much of the latter that is."""
    disassembly = output("dexdump", "-d", apk)
    members, parents = own_classes(disassembly)
    used = used_members(disassembly)
    require("io/antispoof/demo/MainActivity" in members, "the app's classes are missing")
    outside = {owner for owner, _, _ in used}.union(*parents.values()) - members.keys()
    require(any(owner.startswith("android/") for owner in outside), "nothing of Android is used")
    of_android = android_classes(android, outside)
    members |= of_android[0]
    parents |= of_android[1]

    def exists(owner: str, name: str, descriptor: str) -> bool:
        if (name, descriptor) in members.get(owner, set()):
            return True
        return any(exists(parent, name, descriptor) for parent in parents.get(owner, set()))

    missing = sorted(".".join(member) for member in used if not exists(*member))
    require(not missing, f"Android 6 has no {', '.join(missing[:5])}")
    return sum(owner in outside for owner, _, _ in used)


def sizes(apk: zipfile.ZipFile, path: Path) -> str:
    """Returns a table of what the parts take up in the file."""
    parts: dict[str, int] = {}
    for info in apk.infolist():
        match = re.match(r"lib/([^/]+)/(.+)|(assets/detector|classes\.dex|META-INF|res)", info.filename)
        part = "the rest" if match is None else f"{match[2]}, {match[1]}" if match[1] else match[3]
        parts[part] = parts.get(part, 0) + info.compress_size
    rows = [f"{size:12,d} bytes  {part}" for part, size in sorted(parts.items(), key=lambda row: -row[1])]
    return "\n".join([*rows, f"{path.stat().st_size:12,d} bytes  {path.name}"])


def main() -> None:
    """Runs the checks."""
    path, android = sys.argv[1:]
    check_manifest(path)
    check_signature(path)
    with zipfile.ZipFile(path) as apk:
        check_libraries(apk)
        check_detector(apk)
        used = check_code(path, android)
        print(sizes(apk, Path(path)))
    print(
        f"permission: the microphone alone; signed v2 and v3; 16 KB pages; {used} members of Android 6 used"
    )


if __name__ == "__main__":
    main()
