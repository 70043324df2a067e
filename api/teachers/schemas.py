"""What the service says about teachers."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from core.spec import StudentPreset, TeacherInfo, fitting_presets


class StudentOption(BaseModel):
    """A student size that fits the teacher."""

    student: StudentPreset


class Teacher(BaseModel):
    """A teacher that a job may name."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "emoji-64",
                    "family": "sd1",
                    "title": "Emoji 64",
                    "description": "Draws 64-pixel emoji from English captions.",
                    "parameters": 13000000,
                    "licence": "Apache-2.0",
                    "revision": "6f2c0e",
                    "students": [{"student": "b-small"}, {"student": "c-micro"}],
                }
            ]
        }
    )

    id: str
    family: str = Field(description="How prompts are encoded and what the U-Net takes.")
    title: str | None
    description: str | None
    parameters: int = Field(description="Parameters of the U-Net.")
    licence: str | None
    revision: str = Field(description="Changes with the teacher's configs and weights.")
    students: list[StudentOption] = Field(description="The preset sizes that fit this teacher.")

    @classmethod
    def of(cls, teacher: TeacherInfo) -> Self:
        """Describe a registered teacher."""
        fields = teacher.model_dump(include=set(cls.model_fields))
        students = [{"student": preset} for preset in fitting_presets(teacher.unet_config)]
        return cls.model_validate(fields | {"revision": teacher.revision, "students": students})
