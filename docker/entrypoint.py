"""Start a command of the pipeline's image with the settings that `make run` and `make ui` use.

Guarantees:

* The settings of Airflow are those of `dags.local.environment`, except for the variables that
  compose sets, which are those that differ between one machine and containers.
* `init` can run again at any time: it creates what is missing and changes nothing else.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dags.local import environment

PASSWORD = "NIGHTJAR_ADMIN_PASSWORD"  # noqa: S105 (the name of a variable)


def init(home: Path) -> None:
    """Create the workspace, Airflow's tables and pools, and the one login of its page."""
    from pipeline.workspace.workspace import Workspace

    Workspace.init(home)
    environment.make_airflow_home(home)
    write_login(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]))
    environment.set_up(home)


def write_login(file: Path) -> None:
    """Write the file from which Airflow's simple auth manager reads its password; owner only."""
    password = os.environ.get(PASSWORD)
    if not password:
        raise SystemExit(f"{PASSWORD} is not set: Airflow's page needs a password")
    environment.write_login(file, password)


def main(command: list[str]) -> None:
    """Set the environment variables, then replace this process by `command`."""
    home = Path(os.environ["NIGHTJAR_HOME"])
    given = dict(os.environ)
    os.environ.update(environment.settings(home))
    os.environ.update(given)
    if command == ["init"]:
        init(home)
    else:
        os.execvp(command[0], command)  # noqa: S606 (there is no shell)


if __name__ == "__main__":
    main(sys.argv[1:])
