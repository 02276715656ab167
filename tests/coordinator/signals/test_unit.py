import pytest

from coordinator.signals.unit import CARBON, POWER, PRICE, unit_of


@pytest.mark.parametrize(
    ("text", "quantity", "factor"),
    [
        ("kW", POWER, 1000.0),
        ("mW", POWER, 0.001),
        ("MW", POWER, 1e6),
        ("g/kWh", CARBON, 1.0),
        ("kg/MWh", CARBON, 1.0),
        ("lb/MWh", CARBON, 0.45359237),
        ("EUR/MWh", PRICE, 1.0),
        ("USD/kWh", PRICE, 1000.0),
        ("%", "number", 0.01),
    ],
)
def test_units_convert_into_the_projects_own(text: str, quantity: str, factor: float) -> None:
    unit = unit_of(text)
    assert (unit.quantity, unit.factor) == (quantity, pytest.approx(factor))


@pytest.mark.parametrize("text", ["", "w", "Watt", "g/kwh", "eur/MWh", "EURO/MWh"])
def test_an_unknown_unit_names_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="expected one of W, mW, kW"):
        unit_of(text)
