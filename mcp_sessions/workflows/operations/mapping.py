"""map: each item made into another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from ...errors import ExpressionError
from .evaluating import check_expression, evaluate_each
from .operation import Inputs, Operation, items_of

_NEEDS = {"extract": "fields", "project": "projection", "compute": "expression", "transform": "expression"}
_NAMES = {"compute": frozenset(("item", "value")), "transform": frozenset(("item",))}


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Map(Operation):
    function: Literal["extract", "project", "compute", "transform"]
    fields: Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(validate_default=True)] = ()
    projection: Annotated[dict[str, str], Field(default_factory=dict[str, str], validate_default=True, max_length=100)]
    expression: Annotated[str, Field(validate_default=True)] = ""
    output_field: str = "computed"

    @field_validator("fields", "projection", "expression")
    @classmethod
    def _usable(cls, value: Any, info: ValidationInfo) -> Any:
        function = info.data.get("function", "")
        if info.field_name == _NEEDS.get(function):
            if not value:
                raise ValueError(f"is missing in its config: '{function}' needs it")
            if function in _NAMES:
                check_expression(value, _NAMES[function])
        return value

    def run(self, inputs: Inputs) -> dict[str, Any]:
        """{mapped_items, item_count, original_count}. An item that an expression gives nothing for says why."""
        items = items_of(inputs)
        mapped = list(self._mapped(items))
        return {"mapped_items": mapped, "item_count": len(mapped), "original_count": len(items)}

    def _mapped(self, items: list[Any]) -> Iterable[Any]:
        match self.function:
            case "extract":
                return self._extracted(items)
            case "project":
                return map(self._projected, items)
            case "compute":
                return self._computed(items)
            case "transform":
                return self._transformed(items)

    def _extracted(self, items: list[Any]) -> Iterable[Any]:
        """The values of one field, or objects of several; what is no object is left out."""
        objects = [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
        if len(self.fields) == 1:
            return [item.get(self.fields[0]) for item in objects]
        return [{name: item.get(name) for name in self.fields} for item in objects]

    def _projected(self, item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        return {name: _at(item, path) for name, path in self.projection.items()}

    def _computed(self, items: list[Any]) -> Iterable[dict[str, Any]]:
        objects = [dict(cast("dict[str, Any]", item)) if isinstance(item, dict) else {"value": item} for item in items]
        scopes = [{"item": made, "value": item} for made, item in zip(objects, items, strict=True)]
        for made, outcome in zip(objects, evaluate_each(self.expression, scopes), strict=True):
            failed = isinstance(outcome, ExpressionError)
            yield {**made, self.output_field: {"error": outcome.fact} if failed else outcome}

    def _transformed(self, items: list[Any]) -> Iterable[Any]:
        scopes = [{"item": item} for item in items]
        for item, outcome in zip(items, evaluate_each(self.expression, scopes), strict=True):
            failed = isinstance(outcome, ExpressionError)
            yield {"error": outcome.fact, "original": item} if failed else outcome


def _at(value: Any, path: str) -> Any:
    """What stands at a path such as `user.name`; null where nothing does."""
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = cast("dict[str, Any]", value).get(name)
    return value
