"""A gym and a festival's ticket office."""

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

GYM = Domain(
    "gym",
    (
        Table(
            "plans",
            "plan",
            20,
            (
                key("plan_id"),
                pairs("title", "Early Prime Weekend Student Family", "Basic Plus Gold Aqua"),
                category("area", ("weights", "pool", "courts", "sauna"), where="for the {}"),
                number("monthly_fee", 15, 99, most="most expensive", least="cheapest"),
            ),
        ),
        Table(
            "members",
            "member",
            56,
            (
                key("member_id"),
                person("name"),
                category("district", ("North", "Harbour", "Old Town", "Riverside", "Hills"), where="living in {}"),
                number("birth_year", 1948, 2006),
                date("joined_on", "2018-01-01", "2024-05-31", noun="joining date", where="who joined"),
                optional("email", "member###@mail.example"),
                reference("plan_id", "plans", "on"),
            ),
            its="their",
        ),
    ),
    (
        Query(
            "order_limit",
            "SELECT name FROM members ORDER BY birth_year LIMIT 1",
            ("What is the name of the oldest member?", "Show the name of the member who was born first."),
        ),
        Query(
            "order_limit",
            "SELECT title, monthly_fee FROM plans WHERE area = 'pool' ORDER BY monthly_fee",
            (
                "Show the title and monthly fee of the plans for the pool, cheapest first.",
                "List the titles and monthly fees of all pool plans from the cheapest to the most expensive.",
            ),
        ),
        Query(
            "multi_filter",
            "SELECT name FROM members WHERE district = 'Harbour' AND birth_year >= 1980",
            (
                "List the names of members from Harbour who were born in 1980 or later.",
                "Which members live in Harbour and were born in 1980 or after? Show their names.",
            ),
        ),
        Query(
            "aggregate",
            "SELECT SUM(plans.monthly_fee) FROM members JOIN plans ON members.plan_id = plans.plan_id",
            (
                "How much do all members pay together in one month?",
                "What is the total monthly fee over all members?",
            ),
        ),
        Query(
            "join",
            "SELECT members.name, plans.monthly_fee FROM members JOIN plans ON members.plan_id = plans.plan_id "
            "WHERE members.district = 'Old Town' AND plans.monthly_fee > 50",
            (
                "Show the name and monthly fee of every member from Old Town who pays more than 50 a month.",
                "Which members in Old Town pay a monthly fee above 50? Give their names and that fee.",
            ),
        ),
        Query(
            "join_group",
            "SELECT plans.area, COUNT(*) FROM members JOIN plans ON members.plan_id = plans.plan_id "
            "GROUP BY plans.area ORDER BY COUNT(*) DESC",
            (
                "Show each plan area and its number of members, the largest number first.",
                "How many members does each plan area have? Start with the area that has the most.",
            ),
        ),
        Query(
            "group",
            "SELECT district, MIN(birth_year) FROM members GROUP BY district",
            (
                "In which year was the oldest member of each district born? Show the district and the year.",
                "Show each district and the earliest birth year of the members living there.",
            ),
        ),
        Query(
            "subquery",
            "SELECT title FROM plans WHERE monthly_fee = (SELECT MAX(monthly_fee) FROM plans WHERE area = 'weights')",
            (
                "Which plans cost as much as the most expensive plan for the weights area? Show their titles.",
                "List the titles of plans whose monthly fee equals the highest fee of a weights plan.",
            ),
        ),
    ),
)

FESTIVAL = Domain(
    "festival",
    (
        Table(
            "shows",
            "show",
            30,
            (
                key("show_id"),
                pairs(
                    "title",
                    "Silver Midnight Paper Echo Velvet Solar",
                    "Parade Garden Engine Tide Choir",
                ),
                category("genre", ("folk", "jazz", "techno", "comedy", "dance")),
                number("capacity", 120, 4000, 10, plural="capacities", additive=True, most="largest", least="smallest"),
                date("played_on", "2024-06-01", "2024-08-31", noun="show date", where="played"),
            ),
        ),
        Table(
            "tickets",
            "ticket",
            60,
            (
                key("ticket_id"),
                code("serial", "TK"),
                category("zone", ("lawn", "balcony", "front", "lounge"), where="in the {} zone"),
                number("price", 12, 180, additive=True, most="most expensive", least="cheapest"),
                date("sold_on", "2023-10-05", "2024-05-30", noun="sales date", where="sold"),
                later(
                    "scanned_on",
                    "sold_on",
                    (2, 90),
                    noun="scan date",
                    missing="not scanned yet",
                    present="already scanned",
                ),
                reference("show_id", "shows", "for"),
            ),
        ),
    ),
    (
        Query(
            "projection",
            "SELECT title, genre, played_on FROM shows",
            ("Show the title, genre and show date of every show.", "List title, genre and show date of all shows."),
        ),
        Query(
            "filter",
            "SELECT title FROM shows WHERE genre = 'jazz'",
            ("What are the titles of the jazz shows?", "List the title of every jazz show."),
        ),
        Query(
            "aggregate",
            "SELECT SUM(price) FROM tickets WHERE zone = 'front'",
            (
                "How much money did the tickets in the front zone bring in?",
                "What is the total price of all tickets for the front zone?",
                "Add up the prices of the front zone tickets.",
            ),
        ),
        Query(
            "join_group",
            "SELECT shows.genre, SUM(tickets.price) FROM tickets JOIN shows ON tickets.show_id = shows.show_id "
            "GROUP BY shows.genre ORDER BY SUM(tickets.price) DESC LIMIT 1",
            (
                "Which genre earned the most from tickets? Show the genre and the total price.",
                "Show the genre with the highest total ticket price, and that total.",
            ),
        ),
        Query(
            "join",
            "SELECT tickets.serial, shows.title, tickets.price FROM tickets JOIN shows "
            "ON tickets.show_id = shows.show_id WHERE tickets.zone = 'balcony'",
            (
                "Show the serial, show title and price of every balcony ticket.",
                "For each ticket in the balcony zone, give the serial, the title of the show and the price.",
            ),
        ),
        Query(
            "date",
            "SELECT title FROM shows WHERE played_on BETWEEN '2024-07-01' AND '2024-07-31' ORDER BY played_on",
            (
                "List the titles of the shows played in July 2024 in order of their date.",
                "Which shows were played in July 2024? Give their titles, the earliest first.",
            ),
        ),
        Query(
            "subquery",
            "SELECT serial FROM tickets WHERE price > (SELECT MAX(price) FROM tickets WHERE zone = 'lounge')",
            (
                "List the serials of tickets that cost more than every ticket in the lounge zone.",
                "Which tickets have a price above the highest lounge price? Show their serials.",
            ),
        ),
        Query(
            "set_operation",
            "SELECT played_on FROM shows UNION SELECT sold_on FROM tickets",
            (
                "List all dates on which a show was played or a ticket was sold, each date once.",
                "On which different dates was there a show or a ticket sale?",
            ),
        ),
    ),
)
