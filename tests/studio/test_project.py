"""A project: classes and photos are added under safe names, whatever a page says; photos that are there stay as they are."""

import io
from pathlib import Path

import pytest
from PIL import Image

from headstart.errors import DataError
from headstart.studio.project import OWN, Project, RefusedPhoto, class_name, identifier, safe_stem
from headstart.studio.shelf import Shelf
from samples import make_photos


def jpeg(colour: int = 0, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (colour, 90, 200)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mine").mkdir()
    return Project(tmp_path / "mine")


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ("rose.jpg", "rose.jpg"),
        ("../../../etc/passwd", "passwd.jpg"),
        ("C:\\Windows\\win.ini", "win.jpg"),
        (".hidden", "hidden.jpg"),
        ("a\0b\n.png", "a_b.jpg"),
        ("CON.jpg", "photo CON.jpg"),
        ("", "photo.jpg"),
        ("..", "photo.jpg"),
        ("Ä'é (2).JPEG", "Ä'é (2).jpg"),
        ("x" * 400 + ".jpg", "x" * 80 + ".jpg"),
    ],
)
def test_a_photo_lands_in_its_class_under_a_safe_name(project: Project, asked: str, written: str) -> None:
    project.add_class("roses")
    photo = project.add_photo("roses", asked, jpeg())
    assert everything(project.folder) == {f"roses/{written}"}
    assert project.photo(photo.id) == photo
    assert project.file(photo).read_bytes() == jpeg()


def test_the_suffix_follows_the_content_and_a_taken_name_gets_a_number(project: Project) -> None:
    project.add_class("roses")
    for colour, kind in enumerate(("JPEG", "PNG", "WEBP")):
        project.add_photo("roses", "rose.gif", jpeg(colour, kind))
    assert everything(project.folder) == {"roses/rose.jpg", "roses/rose (2).png", "roses/rose (3).webp"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"MZ\x90\0" * 100, "not an image"),
        (jpeg()[:-200], "truncated"),
        (b"\xff\xd8\xff" + b"\0" * 200, "JPEG"),
    ],
)
def test_what_is_no_whole_photo_is_refused_and_nothing_is_written(project: Project, content: bytes, reason: str) -> None:
    project.add_class("roses")
    with pytest.raises(RefusedPhoto, match=reason):
        project.add_photo("roses", "a.jpg", content)
    assert everything(project.folder) == set()


def test_the_same_photo_is_not_added_twice(project: Project) -> None:
    project.add_class("roses")
    project.add_class("tulips")
    project.add_photo("roses", "a.jpg", jpeg())
    with pytest.raises(RefusedPhoto, match="already in this class"):
        project.add_photo("roses", "b.jpg", jpeg())
    with pytest.raises(RefusedPhoto, match="already here, in roses"):
        project.add_photo("tulips", "b.jpg", jpeg())


NO_NAMES = ["", "  ", ".hidden", "..", "a/b", "a\\b", "a:b", "nul", "LPT1.x", "ends.", "tab\x07", "w" * 81, "Thumbs.db"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_no_folder_can_have_everywhere_is_no_class(project: Project, name: str) -> None:
    with pytest.raises(DataError):
        project.add_class(name)
    assert list(project.folder.iterdir()) == []


def test_a_class_is_there_once_in_whatever_case(project: Project) -> None:
    project.add_class("  Red   roses ")
    assert (project.folder / "Red roses").is_dir()
    with pytest.raises(DataError, match="there is a class 'Red roses' already"):
        project.add_class("red Roses")


def test_identifiers_find_photos_of_the_listing_and_nothing_else(project: Project, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    make_photos(project.folder, n=2, classes=("a", "b"))
    assert len(project.look().photos) == 4
    for text in ("../secret.jpg", "a/../../secret.jpg", str(tmp_path / "secret.jpg"), f"{OWN}/labels.json"):
        assert project.photo(text) is None
        assert project.photo(identifier(text)) is None


def test_a_folder_with_its_own_split_is_shown_and_not_added_to(tmp_path: Path) -> None:
    make_photos(tmp_path / "split" / "train", n=2, classes=("a", "b"))
    make_photos(tmp_path / "split" / "test", n=1, classes=("a", "b"), seed=1)
    project = Project(tmp_path / "split")
    assert {label: len(photos) for label, photos in project.look().classes.items()} == {"a": 3, "b": 3}
    with pytest.raises(RefusedPhoto, match="train and test folders"):
        project.add_photo("a", "x.jpg", jpeg())


def test_what_the_studio_keeps_is_no_class(project: Project) -> None:
    (project.folder / OWN / "runs").mkdir(parents=True)
    (project.folder / OWN / "a.jpg").write_bytes(jpeg())
    assert project.look().classes == {}


def test_a_folder_is_open_in_one_studio_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    first = Shelf(None, tmp_path / "mine")
    with pytest.raises(DataError, match="is open in another studio"):
        Shelf(None, tmp_path / "mine")
    assert len(first.projects) == 1


def test_a_shelf_makes_projects_and_finds_them_again(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "home", None)
    shelf.make("My garden")
    with pytest.raises(DataError, match="there is a project 'My garden' already"):
        shelf.make("My  garden")
    del shelf
    assert [project.name for project in Shelf(tmp_path / "home", None).projects.values()] == ["My garden"]


@pytest.mark.parametrize("path", ["nowhere", "file.txt"])
def test_a_folder_that_is_none_is_a_clear_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match="expected a folder of photos"):
        Shelf(None, tmp_path / path)


def test_names_are_made_safe_as_documented() -> None:
    assert safe_stem("../../etc/passwd") == "passwd"
    assert class_name("cafe\u0301") == "café"
