"""A handful of examples of each set in its exact published layout, drawn and written by us.

Nothing is copied from the sets.

`LAYOUTS[adapter](folder)` writes the files into `folder` and returns the options that `examples` needs to accept so
small a set. Every split gets four images (0 … 3), each of another colour.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.adapters._scenes import PICTOGRAMS

IMAGES = 4
ANSWERS = ("yes", "no", "two", "red")


def picture(number: int) -> Image.Image:
    """A 32×24 picture, another one for each number, the same for the same one."""
    random = np.random.default_rng(number)
    low = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(low).resize((32, 24), Image.Resampling.BICUBIC)


def save(path: Path, number: int) -> None:
    """Save `picture(number)` in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path)


def dump(path: Path, value: Any) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def ten(number: int, **more: Any) -> list[dict[str, Any]]:
    """Ten annotators' answers with ids from 1, mostly agreeing."""
    answer = ANSWERS[number]
    return [
        {"answer": answer if n < 8 else "other", "answer_confidence": "yes", "answer_id": n + 1, **more}
        for n in range(10)
    ]


def easy_vqa(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("train", "test")):
        rows = []
        for n in range(IMAGES):
            save(folder / split / "images" / f"{n}.png", 10 * start + n)
            rows += [["what shape is in the image?", "circle", n], ["is there a red shape?", "no", n]]
        dump(folder / split / "questions.json", rows)
    return {}


def openmoji(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    # Base emoji without variants, so many that each share of the split gets some; and one base with all its tones and
    # genders.
    stems = [f"{point:04X}" for point in (*range(0x1F400, 0x1F440), *range(0x1F950, 0x1F96F))]
    tones = ["", "-1F3FB", "-1F3FC", "-1F3FD", "-1F3FE", "-1F3FF"]
    people = ("1F6B6", "1F3C3", "1F9CD", "1F9CE", "1F3C4", "1F6A3", "1F3CA", "1F6B4")
    stems += [
        f"{point}{tone}{sign}"
        for point in people
        for tone in tones
        for sign in ("", "-200D-2640-FE0F", "-200D-2642-FE0F")
    ]
    for number, stem in enumerate(stems):
        red, green, blue = (int(value) for value in np.random.default_rng(number).integers(0, 256, 3))
        rectangle = f'<rect x="{number % 30}" y="9" width="30" height="30" fill="rgb({red},{green},{blue})"/>'
        (folder / f"{stem}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{rectangle}</svg>'
        )
    (folder / "E2CC.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"/>')
    return {}


def pictograms(folder: Path) -> dict[str, str]:
    """OpenMoji's twelve files of the scene sets, drawn: a coloured polygon each, of another number of corners."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, stem in enumerate(PICTOGRAMS.values()):
        angles = 2 * np.pi * np.arange(number + 3) / (number + 3)
        corners = " ".join(f"{36 + 30 * np.cos(angle):.1f},{36 + 30 * np.sin(angle):.1f}" for angle in angles)
        polygon = f'<polygon fill="#ea5a47" stroke="#000" points="{corners}"/>'
        (folder / f"{stem}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{polygon}</svg>'
        )
    return {"size": "12"}


def _coco_vqa(
    folder: Path, questions: str, annotations: str, splits: dict[str, str], answer: Callable[[int], Any]
) -> None:
    for start, (name, images) in enumerate(splits.items()):
        asked, annotated = [], []
        for n in range(IMAGES):
            image = 100 * start + n + 9
            save(folder / images / f"COCO_{images}_{image:012d}.jpg", 10 * start + n)
            for q in range(2):
                identity = image * 1000 + q
                asked.append({"image_id": image, "question": f"What is number {q}?", "question_id": identity})
                facts = {"question_type": "what is", "answer_type": "other", "image_id": image, "question_id": identity}
                annotated.append({**facts, "multiple_choice_answer": ANSWERS[n], "answers": answer(n)})
        head = {
            "info": {"version": "2.0"},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "license": {"name": "x"},
            "data_subtype": name,
        }
        dump(folder / questions.format(name), {**head, "questions": asked})
        dump(folder / annotations.format(name), {**head, "annotations": annotated})


def vqav2(folder: Path) -> dict[str, str]:
    images = {"train2014": "train2014", "val2014": "val2014", "test2015": "test2015", "test-dev2015": "test2015"}
    _coco_vqa(folder, "v2_OpenEndedQuestions_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json", images, ten)
    for name in ("test2015", "test-dev2015"):
        (folder / f"v2_mscoco_{name}_annotations.json").unlink()
    dump(folder / "v2_mscoco_train2014_complementary_pairs.json", [[9000, 10000], [11001, 9001]])
    return {}


def okvqa(folder: Path) -> dict[str, str]:
    images = {"train2014": "train2014", "val2014": "val2014"}
    _coco_vqa(
        folder,
        "OpenEnded_mscoco_{}_questions.json",
        "mscoco_{}_annotations.json",
        images,
        lambda n: [{**one, "raw_answer": one["answer"] + "s"} for one in ten(n)],
    )
    return {}


def aokvqa(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("train", "val", "test")):
        records = []
        for n in range(IMAGES):
            image = 100 * start + n
            save(folder / f"{split}2017" / f"{image:012d}.jpg", 10 * start + n)
            record = {
                "split": split,
                "image_id": image,
                "question_id": f"q{split}{n}",
                "question": "What is it?",
                "choices": list(ANSWERS),
                "difficult_direct_answer": False,
            }
            if split != "test":
                record |= {
                    "correct_choice_idx": n,
                    "direct_answers": [ANSWERS[n]] * 9 + ["other"],
                    "rationales": ["a", "b", "c"],
                }
            records.append(record)
        dump(folder / f"aokvqa_v1p0_{split}.json", records)
    return {}


def vizwiz(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("train", "val", "test")):
        records = []
        for n in range(IMAGES):
            name = f"VizWiz_{split}_{n:08d}.jpg"
            save(folder / split / name, 10 * start + n)
            record: dict[str, Any] = {"image": name, "question": "What is this?"}
            if split != "test":
                answers = [
                    {"answer": "unanswerable" if n == 3 else ANSWERS[n], "answer_confidence": "yes"} for _ in range(10)
                ]
                record |= {
                    "answers": answers,
                    "answer_type": "unanswerable" if n == 3 else "other",
                    "answerable": int(n != 3),
                }
            records.append(record)
        dump(folder / "Annotations" / f"{split}.json", records)
    return {}


def gqa(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("train", "val", "testdev", "test")):
        records, scenes = {}, {}
        for n in range(IMAGES):
            image = f"{2370000 + 100 * start + n}"
            save(folder / "images" / f"{image}.jpg", 10 * start + n)
            record: dict[str, Any] = {"imageId": image, "question": "Is the sky dark?", "isBalanced": True}
            if split != "test":
                types = {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"}
                record |= {
                    "answer": ANSWERS[n],
                    "fullAnswer": f"It is {ANSWERS[n]}.",
                    "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (1)"}],
                    "types": types,
                    "groups": {"global": None, "local": "06-sky_dark"},
                    "entailed": [],
                    "equivalent": [],
                    "semanticStr": "select: sky",
                    "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
                }
            records[f"0{start}{n}"] = record
            scenes[image] = {
                "width": 32,
                "height": 24,
                "objects": {},
                **({"location": "street", "weather": "sunny"} if n == 0 else {}),
            }
        dump(folder / f"{split}_balanced_questions.json", records)
        if split in ("train", "val"):
            dump(folder / "sceneGraphs" / f"{split}_sceneGraphs.json", scenes)
    return {}


def clevr(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("train", "val", "test")):
        records = []
        for n in range(IMAGES):
            name = f"CLEVR_{split}_{n:06d}.png"
            save(folder / "images" / split / name, 10 * start + n)
            record: dict[str, Any] = {
                "image_index": n,
                "image_filename": name,
                "question_index": n,
                "question": "Is it red?",
                "split": split,
            }
            if split != "test":
                last = ("exist", "count", "query_color", "equal_shape")[n]
                program = [
                    {"inputs": [], "function": "scene", "value_inputs": []},
                    {"inputs": [0], "function": last, "value_inputs": []},
                ]
                record |= {"answer": ANSWERS[n], "program": program, "question_family_index": n}
            records.append(record)
        dump(
            folder / "questions" / f"CLEVR_{split}_questions.json",
            {"info": {"split": split, "version": "1.0"}, "questions": records},
        )
    return {}


def textvqa(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("train", "val", "test")):
        records = []
        for n in range(IMAGES):
            image = f"{start}054c91397f2fe0{n}"
            save(folder / ("test_images" if split == "test" else "train_images") / f"{image}.jpg", 10 * start + n)
            record: dict[str, Any] = {
                "question_id": 100 * start + n,
                "image_id": image,
                "question": "what does it say?",
                "question_tokens": ["what", "does", "it", "say"],
                "image_classes": ["Sign"],
                "image_width": 32,
                "image_height": 24,
                "flickr_original_url": "",
                "set_name": split,
            }
            records.append(record if split == "test" else {**record, "answers": [ANSWERS[n]] * 9 + ["other"]})
        head = {"dataset_type": split, "dataset_name": "textvqa", "dataset_version": "0.5.1"}
        dump(folder / f"TextVQA_0.5.1_{split}.json", {**head, "data": records})
    return {}


def vqa_rad(folder: Path) -> dict[str, str]:
    records = []
    for n in range(2 * IMAGES):
        test = n >= IMAGES
        save(folder / "VQA_RAD Image Folder" / f"synpic{n}.jpg", n)
        records.append(
            {
                "qid": n,
                "phrase_type": "test_freeform" if test else "freeform",
                "qid_linked_id": f"link{n % IMAGES if n in (0, IMAGES) else n}",
                "image_case_url": "https://example.org",
                "image_name": f"synpic{n}.jpg",
                "image_organ": "HEAD",
                "evaluation": "evaluated",
                "question": "Is it normal?",
                "question_rephrase": "NULL",
                "question_relation": "NULL",
                "question_frame": "NULL",
                "question_type": "ABN",
                "answer": 3 if n == 2 else ANSWERS[n % IMAGES],
                "answer_type": "CLOSED " if n % 2 else "OPEN",
            }
        )
    dump(folder / "VQA_RAD Dataset Public.json", records)
    return {}


def slake(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("train", "validation", "test")):
        records = []
        for n in range(IMAGES):
            name = f"xmlab{10 * start + n}/source.jpg"
            save(folder / "imgs" / name, 10 * start + n)
            for at, (language, question) in enumerate((("en", "What is it?"), ("zh", "这是什么？"))):
                records.append(
                    {
                        "img_id": 10 * start + n,
                        "img_name": name,
                        "question": question,
                        "answer": ANSWERS[n],
                        "q_lang": language,
                        "location": "Abdomen",
                        "modality": "MRI",
                        "answer_type": "OPEN",
                        "base_type": "vqa",
                        "content_type": "Modality",
                        "triple": ["vhead", "_", "_"],
                        "qid": 100 * start + 2 * n + at,
                    }
                )
        dump(folder / f"{split}.json", records)
    return {}


def _karpathy(
    folder: Path, name: str, splits: tuple[str, ...], image_of: Callable[[str, int], dict[str, Any]], root: str
) -> None:
    images = []
    for start, split in enumerate(splits):
        for n in range(IMAGES):
            identity = 10 * start + n
            record = {
                "imgid": identity,
                "split": split,
                "sentids": list(range(5 * identity, 5 * identity + 5)),
                **image_of(split, identity),
            }
            save(folder / root / record.get("filepath", "") / record["filename"], identity)
            words = ["a", "picture", "of", ANSWERS[n], split]
            sentences = [
                {"tokens": words, "raw": f"{' '.join(words)} {s}.", "imgid": identity, "sentid": 5 * identity + s}
                for s in range(5)
            ]
            images.append({**record, "sentences": sentences})
    dump(folder / f"dataset_{name}.json", {"images": images, "dataset": name})


def coco_captions(folder: Path) -> dict[str, str]:
    def image(split: str, n: int) -> dict[str, Any]:
        place = "train2014" if split == "train" else "val2014"
        return {"filepath": place, "filename": f"COCO_{place}_{n:012d}.jpg", "cocoid": n}

    _karpathy(folder, "coco", ("train", "restval", "val", "test"), image, "")
    return {"other_counts": "yes"}


def flickr30k(folder: Path) -> dict[str, str]:
    _karpathy(
        folder,
        "flickr30k",
        ("train", "val", "test"),
        lambda split, n: {"filename": f"{1000092795 + n}.jpg"},
        "flickr30k-images",
    )
    return {"other_counts": "yes"}


def nocaps(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("val", "test")):
        images, annotations = [], []
        for n in range(IMAGES):
            identity = f"{start}013ea208702090{n}"
            save(folder / split / f"{identity}.jpg", 10 * start + n)
            facts = {"id": n, "coco_url": "", "height": 24, "width": 32, "date_captured": "2018-11-06", "license": 0}
            images.append({**facts, "file_name": f"{identity}.jpg", "open_images_id": identity})
            if split == "val":
                images[-1]["domain"] = "near-domain"
                annotations += [
                    {"image_id": n, "id": 10 * n + c, "caption": f"caption {c} of {ANSWERS[n]}"} for c in range(10)
                ]
        name = "nocaps_val_4500_captions.json" if split == "val" else "nocaps_test_image_info.json"
        tail = {"annotations": annotations} if split == "val" else {}
        dump(folder / name, {"licenses": [], "info": {"year": 2018}, "images": images, **tail})
    return {}


def conceptual_captions(folder: Path) -> dict[str, str]:
    lists = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-1.1.0-Validation.tsv"}
    for start, (split, name) in enumerate(lists.items()):
        for n in range(IMAGES):
            save(folder / split / f"{n:08d}.jpg", 10 * start + n)
        lines = [f"a caption of {n} , said twice\thttps://example.org/{n}.jpg\n" for n in range(IMAGES + 2)]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return {}


def conceptual_captions_shards(folder: Path) -> dict[str, str]:
    for start, split in enumerate(("train", "val")):
        (folder / split).mkdir(parents=True)
        for shard in range(2):
            with tarfile.open(folder / split / f"{shard:05d}.tar", "w") as archive:
                for n in range(IMAGES // 2):
                    number = shard * IMAGES // 2 + n
                    stream = io.BytesIO()
                    picture(10 * start + number).save(stream, "JPEG")
                    texts = {
                        "jpg": stream.getvalue(),
                        "txt": f"caption {number}".encode(),
                        "json": b'{"key": "x", "status": "success"}',
                    }
                    for suffix, content in texts.items():
                        info = tarfile.TarInfo(f"{number:09d}.{suffix}")
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
    return {}


def wordnet(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    licence = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
    for kind, (name, lex_file) in {"n": ("noun", 5), "v": ("verb", 38), "s": ("adj", 0), "r": ("adv", 2)}.items():
        lines = [licence]
        for n in range(12):
            pointers = f"001 @ {n - 1:08d} n 0000" if kind == "n" and n else "000"
            frames = " 01 + 02 00" if kind == "v" else ""
            marker = "(p)" if kind == "s" and n == 0 else ""
            words = f"{name}_word{n}{marker} 0 other{n} 1"
            lines.append(
                f'{n:08d} {lex_file:02d} {kind} 02 {words} {pointers}{frames} | the meaning {n} of a {name}; "an '
                'example"  \n'
            )
        (folder / f"data.{name}").write_text("".join(lines), encoding="utf-8")
    return {}


def word_similarity(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tabs.txt").write_text("tiger\tcat\t7.35\ncar\tautomobile\t8.94\n", encoding="utf-8")
    (folder / "blanks.txt").write_text("sun sunlight 50.0\nriver water 49.0\n", encoding="utf-8")
    (folder / "commas.csv").write_text("Word 1,Word 2,Human (mean)\nold,new,1.58\n", encoding="utf-8")
    return {}


def fashion_mnist(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    for start, prefix in enumerate(("train", "t10k")):
        pixels = np.random.default_rng(start).integers(0, 256, (IMAGES, 28, 28), dtype=np.uint8)
        images = struct.pack(">IIII", 0x00000803, IMAGES, 28, 28) + pixels.tobytes()
        labels = struct.pack(">II", 0x00000801, IMAGES) + bytes(range(IMAGES))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return {}


def openclipart(folder: Path) -> dict[str, str]:
    """Two folders; 26 drawings of as many titles, of which two draw the same."""
    spaces = 'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    for number in range(26):
        place = folder / ("animals", "food")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"thing{chr(97 + number)}_ann_{number:02d}.svg").write_text(
            '<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60">'
            f"<metadata><rdf:RDF {spaces}><dc:title>Thing {number}</dc:title><dc:subject><rdf:Bag><rdf:li></rdf:li>"
            f"<rdf:li>hash</rdf:li><rdf:li>kind_{number % 3}</rdf:li></rdf:Bag></dc:subject></rdf:RDF></metadata>"
            f'<rect x="10" y="10" width="40" height="30" fill="#{min(number, 24) * 10:02x}40a0"/></svg>\n',
            encoding="utf-8",
        )
    return {}


# An adapter that reads two layouts has two entries, "name" and "name/variant"; one that brings its data has None.
LAYOUTS: dict[str, Callable[[Path], dict[str, str]] | None] = {
    "aokvqa": aokvqa,
    "clevr": clevr,
    "coco_captions": coco_captions,
    "conceptual_captions": conceptual_captions,
    "conceptual_captions/shards": conceptual_captions_shards,
    "digits": None,
    "easy_vqa": easy_vqa,
    "fashion_mnist": fashion_mnist,
    "flickr30k": flickr30k,
    "gqa": gqa,
    "nocaps": nocaps,
    "okvqa": okvqa,
    "openclipart": openclipart,
    "openmoji": openmoji,
    "openmoji_classes": openmoji,
    "scene_captions": pictograms,
    "scene_questions": pictograms,
    "slake": slake,
    "textvqa": textvqa,
    "vizwiz": vizwiz,
    "vqa_rad": vqa_rad,
    "vqav2": vqav2,
    "word_similarity": word_similarity,
    "wordnet": wordnet,
}
