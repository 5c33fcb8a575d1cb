"""Datasets that hold their videos in a form that is not read as it lies, and the command that unpacks each."""

import re
import shlex
from typing import NamedTuple

from vadis.datasets.dataset import counted
from vadis.datasets.scan import Tree, folder_of, name_of, split_of
from vadis.results import printable


class Packing(NamedTuple):
    """One form that is not read: the endings of its files' names, and the command that unpacks them."""

    endings: tuple[str, ...]
    command: str  # in the folder of the first such file, with its name for NAME, and PREFIX what is before its number


# name | endings, and the command
_PACKED = r"""
rar | .rar
    for f in *.rar; do unrar x -o- "$f"; done
zip | .zip
    for f in *.zip; do unzip -n "$f"; done
7z | .7z
    for f in *.7z; do 7z x -aos "$f"; done
parquet | .parquet
    python -c "import glob, os, pyarrow.parquet as q; [(os.makedirs(d, exist_ok=True),
    open(f'{d}/{f[:-8]}-{i:06}.mp4', 'wb').write(r['video']['bytes'])) for f in glob.glob('*.parquet')
    for i, r in enumerate(q.read_table(f).to_pylist()) for d in [f.split('-')[0] + '/' + str(r['label'])]]"
class archive | .tar.gz .tgz .tar
    for f in *.tar* *.tgz; do if [ -f "$f" ]; then mkdir -p "${f%%.t*}" && tar -xf "$f" -C "${f%%.t*}"; fi; done
shards | .tar
    for f in *.tar; do d="${f%%[-_.0-9]*}"; d="${d:-shards}"; mkdir -p "$d"; tar -xf "$f" -C "$d"; done;
    for c in */*.cls; do m="${c%/*}/metadata.csv"; [ -e "$m" ] || echo file_name,label > "$m"; b="${c##*/}";
    echo "${b%.cls}.mp4,$(cat "$c")" >> "$m"; done
tar | .tar .tar.gz .tgz .tar.bz2 .tar.xz .tar.zst
    for f in *.tar* *.tgz; do if [ -f "$f" ]; then tar -xf "$f"; fi; done
frames | .jpg .jpeg .png .bmp .webp
    find . -name NAME -printf '%h\n' | while read -r d; do ffmpeg -nostdin -f image2 -framerate 25 -pattern_type
    glob -i "$d/PREFIX*" -vf 'pad=ceil(iw/2)*2:ceil(ih/2)*2' -crf 18 -pix_fmt yuv420p "$d.mp4"; done
other | .h5 .hdf5 .arrow .tfrecord .mdb
"""

PACKED: dict[str, Packing] = {
    name: Packing(tuple(endings.split()), " ".join(command.split()))
    for name, endings, command in re.findall(r"(.+) \| (.+)\n((?: .+\n)*)", _PACKED)
}
"""The forms that are not read, by name; the first that fits counts."""

_NUMBERED = re.compile(r"(?P<prefix>.*?)\d+(\.[a-z0-9]+)+", re.IGNORECASE)


def packed_videos(tree: Tree) -> tuple[str, str] | None:
    """Return the files of a tree in which videos are packed, in words, and how to unpack them; None without any."""
    paths = tree.packed or (() if tree.videos else tree.pictures)  # beside videos pictures are previews
    if not paths:
        return None
    names, first = list(map(_form_of, paths)), paths[0]
    name, command = names[0], PACKED[names[0]].command
    what = counted([each for each in names if each == name], "picture folder" if name == "frames" else "file")
    shown = f"{what} like {printable(tree.relative(first))}"
    if not command:
        return shown, "write the videos out with the program that packed them: one file for each clip"
    match = _NUMBERED.fullmatch(name_of(first))
    command = command.replace("NAME", shlex.quote(name_of(first))).replace("PREFIX", match["prefix"] if match else "")
    folder = shlex.quote(printable(tree.root if name == "frames" else folder_of(first)))
    again = "; again, where that gives archives" if name in ("rar", "zip", "tar") else ""
    return shown, f"unpack them: cd {folder} && {command}{again}"


def _form_of(path: str) -> str:
    """Return the key of ``PACKED`` for a file; archives are told apart by numbers in their names, and their folders."""
    is_numbered = _NUMBERED.fullmatch(name_of(path)) is not None
    is_in_split = split_of(name_of(folder_of(path))) is not None
    excluded = {"class archive" if is_numbered or not is_in_split else "", "" if is_numbered else "shards"}
    return next(name for name, row in PACKED.items() if path.lower().endswith(row.endings) and name not in excluded)
