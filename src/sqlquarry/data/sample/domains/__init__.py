"""The domains of the sample data, each written by hand."""

from sqlquarry.data.sample.domains.civic import INSURANCE, TOWN_LIBRARY
from sqlquarry.data.sample.domains.food import BAKERY, VINEYARD
from sqlquarry.data.sample.domains.health import CLINIC_LAB, VET_CLINIC
from sqlquarry.data.sample.domains.held_out import LANGUAGE_SCHOOL, WIND_FARMS
from sqlquarry.data.sample.domains.leisure import FESTIVAL, GYM
from sqlquarry.data.sample.domains.services import PARCELS, WORKSHOP
from sqlquarry.data.sample.domains.travel import CAR_RENTAL, HOTEL_CHAIN

HELD_OUT = (LANGUAGE_SCHOOL, WIND_FARMS)
DOMAINS = (
    VET_CLINIC,
    CLINIC_LAB,
    GYM,
    FESTIVAL,
    HOTEL_CHAIN,
    CAR_RENTAL,
    BAKERY,
    VINEYARD,
    PARCELS,
    WORKSHOP,
    INSURANCE,
    TOWN_LIBRARY,
    *HELD_OUT,
)
