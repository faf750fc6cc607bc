"""The two domains that no training record comes from: a language school and wind farms."""

from tools.sample_data.lexicon import (
    Domain,
    Query,
    Table,
    category,
    code,
    date,
    key,
    number,
    optional,
    pairs,
    person,
    reference,
)

LANGUAGE_SCHOOL = Domain(
    "language_school",
    (
        Table(
            "teachers",
            "teacher",
            22,
            (
                key("teacher_id"),
                person("name"),
                category("country", ("Spain", "Japan", "Brazil", "Poland", "Kenya"), where="from {}"),
                date("employed_on", "2008-09-01", "2023-09-01", noun="employment date", where="employed"),
                optional("office", "Room 1##", noun="office"),
            ),
            its="their",
        ),
        Table(
            "courses",
            "course",
            50,
            (
                key("course_id"),
                code("course_code", "LC"),
                category("language", ("Spanish", "Japanese", "Portuguese", "Polish", "Swahili"), where="in {}"),
                category("level", ("beginner", "intermediate", "advanced"), where="at {} level"),
                number("tuition", 90, 980, 5, additive=True, most="most expensive", least="cheapest"),
                number("seats", 4, 60, counted="seats", additive=True, most="largest", least="smallest"),
                reference("teacher_id", "teachers", "given by"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT course_code FROM courses WHERE language = 'Polish'",
            ("List the course codes of all Polish courses.", "What are the course codes of the courses in Polish?"),
        ),
        Query(
            "multi_filter",
            "SELECT course_code, tuition FROM courses WHERE language = 'Spanish' AND level = 'advanced'",
            (
                "Show the course code and tuition of every advanced Spanish course.",
                "List the course codes and tuitions of Spanish courses at advanced level.",
            ),
        ),
        Query(
            "count",
            "SELECT COUNT(*) FROM courses WHERE level = 'beginner'",
            ("How many courses are for beginners?", "Count the beginner courses."),
        ),
        Query(
            "aggregate",
            "SELECT SUM(tuition * seats) FROM courses",
            (
                "How much tuition comes in when all seats of all courses are taken?",
                "Give the sum of tuition multiplied by seats over all courses.",
            ),
        ),
        Query(
            "join",
            "SELECT DISTINCT teachers.name FROM courses JOIN teachers ON courses.teacher_id = teachers.teacher_id "
            "WHERE courses.level = 'advanced'",
            (
                "Which teachers give an advanced course? List each name once.",
                "Show the different names of teachers with a course at advanced level.",
            ),
        ),
        Query(
            "join_group",
            "SELECT teachers.name, SUM(courses.seats) FROM courses JOIN teachers "
            "ON courses.teacher_id = teachers.teacher_id GROUP BY teachers.name "
            "ORDER BY SUM(courses.seats) DESC LIMIT 3",
            (
                "Show the 3 teachers with the most seats in their courses: name and total seats, most first.",
                "Which 3 teachers have the highest total of seats? Give the name and the total, highest first.",
            ),
        ),
        Query(
            "having",
            "SELECT language FROM courses GROUP BY language HAVING MIN(tuition) < 150",
            (
                "Which languages have a course that costs less than 150?",
                "List the languages whose lowest tuition is below 150.",
            ),
        ),
        Query(
            "subquery",
            "SELECT course_code FROM courses WHERE tuition > "
            "(SELECT AVG(tuition) FROM courses WHERE level = 'advanced')",
            (
                "List the course codes of courses that cost more than the average advanced course.",
                "Which courses have a tuition above the average of the advanced level? Show their course codes.",
            ),
        ),
    ),
)

WIND_FARMS = Domain(
    "wind_farms",
    (
        Table(
            "farms",
            "farm",
            24,
            (
                key("farm_id"),
                pairs("name", "Gale Breeze Gust Mistral Zephyr", "Point Moor Bank Heath Cliff"),
                category("site", ("coastal", "offshore", "mountain", "inland"), where="at {} sites"),
                date("opened_on", "2003-05-01", "2021-10-31", noun="opening date", where="opened"),
                optional("phone", "05## ######", noun="phone number"),
            ),
        ),
        Table(
            "turbines",
            "turbine",
            56,
            (
                key("turbine_id"),
                code("code", "WT"),
                category("maker", ("Norvind", "Aerolux", "Tramont", "Borealis"), where="made by {}"),
                number(
                    "power_kw",
                    800,
                    9500,
                    50,
                    noun="power",
                    unit="kW",
                    additive=True,
                    most="most powerful",
                    least="weakest",
                ),
                number("height_m", 60, 190, noun="height", unit="m", most="tallest", least="shortest"),
                date("installed_on", "2004-01-01", "2023-06-30", noun="installation date", where="installed"),
                reference("farm_id", "farms", "standing on"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT code FROM turbines WHERE height_m > 150",
            (
                "List the codes of turbines taller than 150 m.",
                "Which turbines are higher than 150 m? Show their codes.",
                "What is the code of every turbine above 150 m?",
            ),
        ),
        Query(
            "count",
            "SELECT COUNT(*) FROM farms WHERE site = 'offshore'",
            ("How many offshore farms are there?", "Count the farms that stand offshore."),
        ),
        Query(
            "aggregate",
            "SELECT SUM(power_kw) / 1000.0 FROM turbines",
            (
                "What is the total power of all turbines in thousands of kW?",
                "Add up the power of all turbines and divide the sum by 1000.",
            ),
        ),
        Query(
            "order_limit",
            "SELECT code, height_m FROM turbines WHERE maker = 'Aerolux' ORDER BY height_m DESC LIMIT 3",
            (
                "Show the code and height of the 3 tallest turbines made by Aerolux.",
                "What are the codes and heights of the 3 highest Aerolux turbines?",
            ),
        ),
        Query(
            "group",
            "SELECT maker, COUNT(*), SUM(power_kw) FROM turbines GROUP BY maker",
            (
                "Show each maker with its number of turbines and their total power.",
                "For each maker, give the number of turbines and the total power.",
            ),
        ),
        Query(
            "join_group",
            "SELECT farms.name, SUM(turbines.power_kw) FROM turbines JOIN farms ON turbines.farm_id = farms.farm_id "
            "GROUP BY farms.name ORDER BY SUM(turbines.power_kw) DESC LIMIT 1",
            (
                "Which farm has the highest total power? Show its name and the total.",
                "Show the name and total power of the farm whose turbines have the most power together.",
            ),
        ),
        Query(
            "join",
            "SELECT turbines.code, farms.name FROM turbines JOIN farms ON turbines.farm_id = farms.farm_id "
            "WHERE turbines.installed_on < farms.opened_on",
            (
                "Show the code and farm name of every turbine installed before its farm opened.",
                "Which turbines were installed before their farm's opening date? Give the code and the farm's name.",
            ),
        ),
        Query(
            "subquery",
            "SELECT code FROM turbines WHERE height_m = (SELECT MAX(height_m) FROM turbines)",
            (
                "List the codes of all turbines that are as tall as the tallest one.",
                "Which turbines have the greatest height of all? Show every such code.",
            ),
        ),
    ),
)
