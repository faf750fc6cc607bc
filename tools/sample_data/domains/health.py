"""A veterinary practice and a clinic's laboratory."""

from tools.sample_data.lexicon import (
    Domain,
    Query,
    Table,
    category,
    code,
    date,
    key,
    later,
    number,
    optional,
    pairs,
    person,
    reference,
)

VET_CLINIC = Domain(
    "vet_clinic",
    (
        Table(
            "owners",
            "owner",
            30,
            (
                key("owner_id"),
                person("name"),
                category("city", ("Lyon", "Porto", "Ghent", "Turin", "Graz"), where="from {}"),
                optional("phone", "0## ### ####", noun="phone number"),
            ),
            its="their",
        ),
        Table(
            "pets",
            "pet",
            48,
            (
                key("pet_id"),
                pairs(
                    "name",
                    "Biscuit Pepper Luna Momo Rocky Nala Simba Coco",
                    "Junior Star Brave Tiny Storm Sky Dot Fuzz",
                ),
                category("species", ("dog", "cat", "rabbit", "parrot", "hamster"), plural="species"),
                number("weight_kg", 0.8, 24, 0.1, noun="weight", unit="kg", most="heaviest", least="lightest"),
                date("born_on", "2012-01-01", "2023-12-31", noun="birth date", where="born"),
                reference("owner_id", "owners", "owned by"),
            ),
        ),
        Table(
            "visits",
            "visit",
            60,
            (
                key("visit_id"),
                category("reason", ("checkup", "vaccination", "injury", "surgery", "dental care"), where="for {}"),
                number("fee", 25, 640, additive=True, most="most expensive", least="cheapest"),
                date("visited_on", "2021-01-01", "2024-06-30", noun="visit date", where="made"),
                reference("pet_id", "pets", "by"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT name FROM pets WHERE species = 'dog'",
            ("What are the names of all dogs?", "List the name of every dog.", "Show the names of the dogs."),
        ),
        Query(
            "multi_filter",
            "SELECT name, weight_kg FROM pets WHERE species = 'cat' AND weight_kg < 10",
            (
                "Show the name and weight of every cat lighter than 10 kg.",
                "Which cats weigh less than 10 kg? Give their names and weights.",
            ),
        ),
        Query(
            "aggregate",
            "SELECT SUM(fee) FROM visits WHERE reason = 'surgery'",
            (
                "How much did all surgery visits cost together?",
                "What is the sum of the fees paid for surgery?",
                "Add up the fees of the visits with the reason surgery.",
            ),
        ),
        Query(
            "order_limit",
            "SELECT name FROM pets ORDER BY born_on LIMIT 1",
            ("What is the name of the oldest pet?", "Show the name of the pet that was born first."),
        ),
        Query(
            "join",
            "SELECT pets.name, owners.phone FROM pets JOIN owners ON pets.owner_id = owners.owner_id "
            "WHERE pets.species = 'parrot'",
            (
                "Show the name of every parrot and the phone number of its owner.",
                "For each parrot, give its name and the phone number of the owner.",
            ),
        ),
        Query(
            "join_group",
            "SELECT pets.species, SUM(visits.fee) FROM visits JOIN pets ON visits.pet_id = pets.pet_id "
            "GROUP BY pets.species",
            (
                "How much was paid in visit fees for each species?",
                "Show each species and the total fee of the visits of its pets.",
            ),
        ),
        Query(
            "join",
            "SELECT visits.visited_on, owners.name FROM visits JOIN pets ON visits.pet_id = pets.pet_id "
            "JOIN owners ON pets.owner_id = owners.owner_id WHERE visits.reason = 'injury'",
            (
                "Show the visit date and the owner's name for every visit because of an injury.",
                "For each injury visit, list the visit date and the name of the pet's owner.",
            ),
        ),
        Query(
            "subquery",
            "SELECT COUNT(*) FROM pets WHERE pet_id NOT IN (SELECT pet_id FROM visits)",
            ("How many pets have never had a visit?", "Count the pets that were never brought in for a visit."),
        ),
    ),
)

CLINIC_LAB = Domain(
    "clinic_lab",
    (
        Table(
            "analysts",
            "analyst",
            24,
            (
                key("analyst_id"),
                person("name"),
                category("shift", ("morning", "evening", "night"), where="on the {} shift"),
                number("salary", 31000, 68000, 100, plural="salaries", additive=True, most="best paid"),
                date("hired_on", "2010-03-01", "2023-11-30", noun="hiring date", where="hired"),
            ),
            its="their",
        ),
        Table(
            "samples",
            "sample",
            56,
            (
                key("sample_id"),
                code("barcode", "LB"),
                category("material", ("blood", "urine", "saliva", "tissue"), where="of {}"),
                number("volume_ml", 0.5, 12, 0.1, noun="volume", unit="ml", additive=True),
                date("taken_on", "2023-01-01", "2024-08-31", noun="sampling date", where="taken"),
                later(
                    "approved_on",
                    "taken_on",
                    (1, 14),
                    noun="approval date",
                    missing="not approved yet",
                    present="already approved",
                ),
                reference("analyst_id", "analysts", "tested by"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT barcode FROM samples WHERE material = 'blood'",
            ("List the barcodes of all blood samples.", "What is the barcode of every blood sample?"),
        ),
        Query(
            "count",
            "SELECT COUNT(*) FROM analysts WHERE shift = 'night'",
            ("How many analysts work at night?", "Count the analysts who work the night shift."),
        ),
        Query(
            "order_limit",
            "SELECT name, salary FROM analysts WHERE shift = 'morning' ORDER BY salary DESC LIMIT 3",
            (
                "Show the name and salary of the 3 best paid analysts on the morning shift.",
                "Who are the 3 analysts of the morning shift that earn the most? Give their names and salaries.",
            ),
        ),
        Query(
            "null",
            "SELECT barcode FROM samples WHERE material = 'urine' AND approved_on IS NULL",
            (
                "List the barcodes of urine samples that still wait for approval.",
                "Which urine samples have no approval date? Show their barcodes.",
            ),
        ),
        Query(
            "join",
            "SELECT DISTINCT analysts.name FROM samples JOIN analysts ON samples.analyst_id = analysts.analyst_id "
            "WHERE samples.material = 'saliva'",
            (
                "Which analysts have tested saliva? List each name once.",
                "Show the different names of analysts who tested a saliva sample.",
            ),
        ),
        Query(
            "join_group",
            "SELECT analysts.name FROM samples JOIN analysts ON samples.analyst_id = analysts.analyst_id "
            "GROUP BY analysts.name HAVING COUNT(*) > 3",
            (
                "What are the names of analysts who tested more than 3 samples?",
                "List the name of every analyst with more than 3 samples.",
            ),
        ),
        Query(
            "date",
            "SELECT barcode, julianday(approved_on) - julianday(taken_on) FROM samples WHERE approved_on IS NOT NULL",
            (
                "Show the barcode of every approved sample and the days from sampling to approval.",
                "For each approved sample, give the barcode and how many days after sampling it was approved.",
            ),
        ),
        Query(
            "aggregate",
            "SELECT MAX(salary) - MIN(salary) FROM analysts",
            (
                "How far apart are the highest and the lowest salary of the analysts?",
                "What is the difference between the highest and the lowest salary of all analysts?",
            ),
        ),
    ),
)
