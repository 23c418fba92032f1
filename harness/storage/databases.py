"""Addresses of databases: a sqlite file as a URL and back, and which driver a URL lacks."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

# What to do where a driver is missing; any other has its package's name.
_INSTALL = {
    "psycopg": "write postgresql+psycopg2:// and pip install 'preference-harness[team]'",
    "psycopg2": "pip install 'preference-harness[team]'",
    "MySQLdb": "pip install mysqlclient",
}


def sqlite_url(file: Path) -> str:
    """The URL of a sqlite file whose folders may have any name: `?` and `%` would otherwise end or change the path.

    The driver is named because MLflow makes the folder of a `sqlite:///` URL from its text, percent signs and all.
    """
    return f"sqlite+pysqlite:///{quote(str(file.resolve()))}"


def sqlite_file(url: str) -> Path:
    """The file of a sqlite URL."""
    from sqlalchemy.engine import make_url

    return Path(make_url(url).database or "")


def driver_problem(url: str) -> str:
    """What keeps a database URL from being opened on this machine, with the fix; empty where nothing does.

    Nothing is connected to.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        make_url(url).get_dialect().import_dbapi()
    except NoSuchModuleError:
        return f"SQLAlchemy knows no database '{url.partition(':')[0]}'; expected sqlite, postgresql+psycopg2 or mysql"
    except (ArgumentError, ValueError):
        return "not the URL of a database; expected a form such as postgresql+psycopg2://USER@HOST:5432/NAME"
    except ImportError as error:
        name = error.name or str(error)
        return f"its driver {name} is not installed; {_INSTALL.get(name, f'pip install {name}')}"
    return ""
