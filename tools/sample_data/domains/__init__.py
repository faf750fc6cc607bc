"""The domains of the sample data, each written by hand."""

from tools.sample_data.domains.civic import INSURANCE, TOWN_LIBRARY
from tools.sample_data.domains.food import BAKERY, VINEYARD
from tools.sample_data.domains.health import CLINIC_LAB, VET_CLINIC
from tools.sample_data.domains.held_out import LANGUAGE_SCHOOL, WIND_FARMS
from tools.sample_data.domains.leisure import FESTIVAL, GYM
from tools.sample_data.domains.services import PARCELS, WORKSHOP
from tools.sample_data.domains.travel import CAR_RENTAL, HOTEL_CHAIN

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
