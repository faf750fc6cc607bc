"""Columns with personal data are recognized by their names, their tables or their values."""

import pytest

from sqlquarry.data.database.personal import personal_data


@pytest.mark.parametrize(
    ("table", "column", "kind"),
    [
        ("users", "email", "e-mail address"),
        ("orders", "ContactPhone", "phone number"),
        ("staff", "LastName", "name"),
        ("customers", "name", "name of a person"),
        ("UserProfiles", "Name", "name of a person"),
        ("orders", "customer_name", "name of a person"),
        ("sessions", "api_key", "credential"),
        ("sessions", "access_tokens", "credential"),
        ("payments", "AccountNumber", "account number"),
        ("people", "tax_id", "identity number"),
        ("shops", "street_address", "street address"),
        ("students", "dept_name", ""),
        ("products", "name", ""),
        ("web_client_accelerator", "name", ""),
        ("customers", "address_id", ""),
        ("phones", "phone_type_code", ""),
        ("addresses", "date_address_from", ""),
        ("cities", "country", ""),
    ],
)
def test_names_decide(table: str, column: str, kind: str) -> None:
    assert personal_data(table, column, []) == kind


def test_values_decide_if_they_are_not_single_cases() -> None:
    mails = [f"somebody{i}@mail.org" for i in range(10)]
    others = [f"value {i}" for i in range(190)]
    assert personal_data("notes", "about", mails) == "e-mail address"
    assert personal_data("notes", "about", [*mails, *others]) == ""
    assert personal_data("notes", "about", [*mails, *others[:180]]) == "e-mail address"
    assert personal_data("notes", "about", [5, 1.5]) == ""
