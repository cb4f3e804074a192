"""`EnergyMeter`: estimates the energy use and CO2 emissions of a run with CodeCarbon, offline."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stageproof.runtime.errors import InputError


class EnergyMeter:
    """Measures from construction until `stop`.

    country: ISO 3166 alpha-3 code of the country whose electricity mix is assumed; CodeCarbon uses the world average
        for a country that it does not know.

    Raises InputError when the package is missing.
    """

    def __init__(self, country: str) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError as error:
            raise InputError("--energy needs a package: pip install 'stageproof[energy]'.") from error
        self.country = country
        logging.getLogger("codecarbon").disabled = True  # it logs to stderr before it applies any log level
        with _its_warnings_ignored():
            self._tracker = OfflineEmissionsTracker(country_iso_code=country, save_to_file=False, log_level="critical")
            self._tracker.start()

    def stop(self) -> dict[str, Any] | None:
        """Energy (kWh), emissions (kg of CO2 equivalents) and duration (s) on this machine; JSON-serialisable.

        None if CodeCarbon failed. It does so silently, and a trained model must not be lost because of it.
        """
        with _its_warnings_ignored():
            kilograms = self._tracker.stop()
        found = getattr(self._tracker, "final_emissions_data", None)
        if found is None:
            return None
        return {
            "energy_kwh": float(found.energy_consumed),
            "co2_kg": float(kilograms or 0.0),
            "seconds": float(found.duration),
            "country": self.country,
            "estimated_by": f"codecarbon {found.codecarbon_version}",
        }


@contextmanager
def _its_warnings_ignored() -> Iterator[None]:
    """CodeCarbon suppresses exceptions, so it would lose its results where warnings are turned into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
