"""A parcel service and a repair workshop."""

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

PARCELS = Domain(
    "parcels",
    (
        Table(
            "depots",
            "depot",
            22,
            (
                key("depot_id"),
                pairs("name", "Airport Canal Rail Motorway Port", "Hub Yard Gate Dock Point"),
                category("region", ("coast", "valley", "highland", "plain"), where="in the {} region"),
                number("gates", 2, 60, counted="gates", additive=True, most="largest", least="smallest"),
            ),
        ),
        Table(
            "parcels",
            "parcel",
            60,
            (
                key("parcel_id"),
                code("tracking_code", "PX"),
                category("service", ("standard", "express", "economy", "overnight"), where="sent by {} service"),
                number(
                    "weight_kg",
                    0.2,
                    31,
                    0.1,
                    noun="weight",
                    unit="kg",
                    additive=True,
                    most="heaviest",
                    least="lightest",
                ),
                date("sent_on", "2022-11-01", "2024-10-31", noun="sending date", where="sent"),
                later(
                    "delivered_on",
                    "sent_on",
                    (1, 9),
                    noun="delivery date",
                    missing="not delivered yet",
                    present="already delivered",
                ),
                reference("depot_id", "depots", "handled by"),
            ),
        ),
    ),
    (
        Query(
            "count",
            "SELECT COUNT(*) FROM parcels WHERE service = 'express' AND weight_kg > 10",
            (
                "How many express parcels are heavier than 10 kg?",
                "Count the parcels sent by express that weigh more than 10 kg.",
            ),
        ),
        Query(
            "aggregate",
            "SELECT SUM(weight_kg) FROM parcels WHERE delivered_on IS NULL",
            (
                "How many kg do the undelivered parcels weigh together?",
                "What is the total weight of all parcels without a delivery date?",
            ),
        ),
        Query(
            "order_limit",
            "SELECT tracking_code FROM parcels WHERE service = 'overnight' ORDER BY weight_kg DESC LIMIT 1",
            (
                "What is the tracking code of the heaviest overnight parcel?",
                "Show the tracking code of the overnight parcel that weighs the most.",
            ),
        ),
        Query(
            "null",
            "SELECT tracking_code, sent_on FROM parcels WHERE delivered_on IS NULL ORDER BY sent_on LIMIT 5",
            (
                "Show the tracking code and sending date of the 5 undelivered parcels that were sent first.",
                "Which 5 parcels have waited longest for delivery? Give tracking code and sending date, longest first.",
            ),
        ),
        Query(
            "date",
            "SELECT tracking_code FROM parcels WHERE julianday(delivered_on) - julianday(sent_on) > 5",
            (
                "List the tracking codes of parcels that took more than 5 days from sending to delivery.",
                "Which parcels were delivered more than 5 days after they were sent? Show their tracking codes.",
            ),
        ),
        Query(
            "join_group",
            "SELECT depots.region, COUNT(*) FROM parcels JOIN depots ON parcels.depot_id = depots.depot_id "
            "WHERE parcels.service = 'express' GROUP BY depots.region",
            (
                "How many express parcels were handled in each region?",
                "Show each region and the number of express parcels of its depots.",
            ),
        ),
        Query(
            "join",
            "SELECT parcels.tracking_code FROM parcels JOIN depots ON parcels.depot_id = depots.depot_id "
            "WHERE depots.region = 'coast' AND parcels.weight_kg < 5",
            (
                "List the tracking codes of parcels lighter than 5 kg that depots in the coast region handled.",
                "Which parcels below 5 kg went through a depot of the coast region? Show their tracking codes.",
            ),
        ),
        Query(
            "subquery",
            "SELECT name FROM depots WHERE gates > (SELECT AVG(gates) FROM depots WHERE region = 'plain')",
            (
                "Which depots have more gates than an average depot of the plain region? Show their names.",
                "List the names of depots with more gates than the average over the plain region.",
            ),
        ),
    ),
)

WORKSHOP = Domain(
    "workshop",
    (
        Table(
            "mechanics",
            "mechanic",
            21,
            (
                key("mechanic_id"),
                person("name"),
                category("trade", ("electrics", "wood", "metal", "textiles"), plural="trades", where="working with {}"),
                number("hourly_rate", 22, 78, most="most expensive", least="cheapest"),
                optional("mobile", "07## ######", noun="mobile number"),
            ),
            its="their",
        ),
        Table(
            "repairs",
            "repair",
            60,
            (
                key("repair_id"),
                category("item", ("toaster", "bicycle", "lamp", "chair", "radio"), where="of the item {}"),
                number("hours", 0.5, 16, 0.5, counted="hours", additive=True, most="longest"),
                number("parts_cost", 3, 260, additive=True),
                date("received_on", "2023-02-01", "2024-09-15", noun="receipt date", where="received"),
                later(
                    "finished_on",
                    "received_on",
                    (1, 40),
                    noun="finishing date",
                    missing="not finished yet",
                    present="already finished",
                ),
                reference("mechanic_id", "mechanics", "done by"),
            ),
        ),
    ),
    (
        Query(
            "count",
            "SELECT COUNT(*) FROM repairs WHERE item = 'bicycle'",
            (
                "Count the repairs of bicycles.",
                "How many bicycle repairs are there?",
            ),
        ),
        Query(
            "filter",
            "SELECT name FROM mechanics WHERE trade = 'wood'",
            ("Which mechanics work with wood? Show their names.", "List the name of every mechanic for wood."),
        ),
        Query(
            "aggregate",
            "SELECT AVG(hours) FROM repairs WHERE item = 'radio'",
            (
                "How many hours does it take to repair a radio on average?",
                "What is the average number of hours for the repair of a radio?",
            ),
        ),
        Query(
            "group",
            "SELECT item, SUM(parts_cost) FROM repairs GROUP BY item ORDER BY SUM(parts_cost) DESC",
            (
                "Show each item and its total parts cost, the highest total first.",
                "What did the parts cost in total for each item? Start with the most expensive item.",
            ),
        ),
        Query(
            "join",
            "SELECT repairs.repair_id, repairs.hours * mechanics.hourly_rate + repairs.parts_cost FROM repairs "
            "JOIN mechanics ON repairs.mechanic_id = mechanics.mechanic_id",
            (
                "Show the repair id and full cost of every repair: hours times hourly rate, plus the parts cost.",
                "For each repair, give the repair id and the hours multiplied by the hourly rate plus the parts cost.",
            ),
        ),
        Query(
            "join_group",
            "SELECT mechanics.name, SUM(repairs.hours) FROM repairs JOIN mechanics "
            "ON repairs.mechanic_id = mechanics.mechanic_id GROUP BY mechanics.name HAVING SUM(repairs.hours) > 20",
            (
                "Which mechanics worked more than 20 hours on repairs in total? Show the name and the hours.",
                "Show the name and total repair hours of every mechanic with more than 20 hours.",
            ),
        ),
        Query(
            "null",
            "SELECT DISTINCT item FROM repairs WHERE finished_on IS NULL",
            (
                "Which different items are still in repair?",
                "List every item that has an unfinished repair, each item once.",
            ),
        ),
        Query(
            "set_operation",
            "SELECT mechanic_id FROM mechanics EXCEPT SELECT mechanic_id FROM repairs",
            (
                "List the mechanic ids that do not occur in any repair.",
                "Which mechanic ids have no repair at all?",
            ),
        ),
    ),
)
