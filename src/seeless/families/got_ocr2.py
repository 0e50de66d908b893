"""GOT-OCR 2 and PP-Chart2Table: a tower of SAM's kind with windows and relative positions, one grid per image."""

from seeless.core.family import Family

FAMILY = Family(
    title="GOT-OCR 2",
    model_types=("got_ocr2", "pp_chart2table"),
    tower_layers=(),
    projected=False,
    note="its tower is not read and not counted: methods that rank by the tower's attention do not work",
)
