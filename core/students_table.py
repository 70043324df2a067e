"""Print the students of a teacher: ``python -m core.students_table UNET_CONFIG.json``."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core.errors import InvalidStudentError
from core.students import PRESETS, derive_student
from core.unet_layout import unet_layout


def main() -> None:
    """Print parameters and multiply-accumulates of every preset."""
    parser = argparse.ArgumentParser(prog="python -m core.students_table", description=__doc__)
    parser.add_argument("unet_config", type=Path, help="config.json of the teacher's U-Net")
    parser.add_argument("--prompt-tokens", type=int, default=77, help="length of the text condition")
    options = parser.parse_args()
    teacher = json.loads(options.unet_config.read_text())
    table = Table("model", "parameters", "GMACs", "channels")
    for column in table.columns[1:3]:
        column.justify = "right"
    for student in (None, *PRESETS):
        name = student or "teacher"
        try:
            config = derive_student(teacher, student) if student else teacher
        except InvalidStudentError as error:
            table.add_row(name, "", "", error.message)
            continue
        layout = unet_layout(config, prompt_tokens=options.prompt_tokens)
        table.add_row(
            name,
            f"{layout.parameters:,}",
            f"{layout.layer_multiply_accumulates / 1e9:,.2f}",
            " ".join(map(str, config["block_out_channels"])),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
