"""An insurance company and a town library."""

from tools.sample_data.lexicon import (
    Domain,
    Query,
    Table,
    category,
    date,
    key,
    later,
    number,
    pairs,
    person,
    reference,
)

INSURANCE = Domain(
    "insurance",
    (
        Table(
            "policies",
            "policy",
            36,
            (
                key("policy_id"),
                person("holder", "held by {}", noun="holder name"),
                category("cover", ("home", "travel", "liability", "bicycle"), where="with {} cover"),
                number("premium", 60, 1900, 10, additive=True, most="most expensive", least="cheapest"),
                date("signed_on", "2016-01-01", "2023-12-31", noun="signing date", where="signed"),
            ),
        ),
        Table(
            "claims",
            "claim",
            58,
            (
                key("claim_id"),
                category("cause", ("water", "theft", "storm", "fire", "accident"), where="caused by {}"),
                number("amount", 150, 24000, 50, additive=True, most="largest", least="smallest"),
                date("filed_on", "2021-01-01", "2024-08-31", noun="filing date", where="filed"),
                later(
                    "paid_on", "filed_on", (5, 90), noun="payment date", missing="not paid yet", present="already paid"
                ),
                reference("policy_id", "policies", "under"),
            ),
        ),
    ),
    (
        Query(
            "count",
            "SELECT COUNT(*) FROM claims WHERE cause = 'fire'",
            ("How many fire claims are there?", "Count the claims because of a fire."),
        ),
        Query(
            "aggregate",
            "SELECT SUM(amount) FROM claims WHERE paid_on IS NULL",
            (
                "How much money is claimed but not paid yet?",
                "What is the total amount of the claims without a payment date?",
            ),
        ),
        Query(
            "multi_filter",
            "SELECT claim_id FROM claims WHERE cause = 'theft' AND amount > 5000",
            (
                "List the claim ids of thefts with an amount above 5000.",
                "Which theft claims are higher than 5000? Show their claim ids.",
            ),
        ),
        Query(
            "order_limit",
            "SELECT claim_id, amount FROM claims WHERE cause = 'storm' ORDER BY amount DESC LIMIT 3",
            (
                "Show the claim id and amount of the 3 largest storm claims.",
                "What are the claim ids and amounts of the 3 highest claims caused by a storm?",
            ),
        ),
        Query(
            "join",
            "SELECT policies.holder, claims.amount FROM claims JOIN policies ON claims.policy_id = policies.policy_id "
            "WHERE claims.amount > policies.premium * 20",
            (
                "Show the holder and amount of every claim above 20 times the premium of its policy.",
                "For each claim whose amount is greater than 20 premiums of the policy, give the holder and amount.",
            ),
        ),
        Query(
            "join_group",
            "SELECT policies.holder, SUM(claims.amount) FROM claims JOIN policies "
            "ON claims.policy_id = policies.policy_id GROUP BY policies.holder "
            "ORDER BY SUM(claims.amount) DESC LIMIT 3",
            (
                "Show the 3 holders with the highest total claim amount, and that total, highest first.",
                "Which 3 holders claimed the most in total? Give the holder and the total amount, highest first.",
            ),
        ),
        Query(
            "having",
            "SELECT cause, SUM(amount) FROM claims GROUP BY cause HAVING SUM(amount) > 100000",
            (
                "Which causes add up to more than 100000? Show the cause and the total amount.",
                "Show each cause whose claims have a total amount above 100000, and that total.",
            ),
        ),
        Query(
            "subquery",
            "SELECT holder FROM policies WHERE policy_id IN (SELECT policy_id FROM claims WHERE cause = 'water')",
            (
                "Which holders have a policy with a water claim? List them once for each policy.",
                "List the holders of the policies that have at least one claim caused by water.",
            ),
        ),
    ),
)

TOWN_LIBRARY = Domain(
    "town_library",
    (
        Table(
            "readers",
            "reader",
            30,
            (
                key("reader_id"),
                person("name"),
                category("street", ("Mill Lane", "Station Road", "Park Avenue", "Church Hill"), where="living in {}"),
                number("age", 7, 88, most="oldest", least="youngest"),
            ),
            its="their",
        ),
        Table(
            "books",
            "book",
            40,
            (
                key("book_id"),
                pairs(
                    "title",
                    "Hidden Last Silent Distant Winter Glass Crimson",
                    "Island Letter Harbor Orchard Signal Bridge River",
                ),
                category("subject", ("history", "travel", "crime", "science", "poetry"), where="about {}"),
                number("pages", 80, 720, counted="pages", additive=True, most="longest", least="shortest"),
            ),
        ),
        Table(
            "loans",
            "loan",
            60,
            (
                key("loan_id"),
                date("lent_on", "2023-01-02", "2024-09-30", noun="lending date", where="made"),
                later(
                    "returned_on",
                    "lent_on",
                    (3, 60),
                    noun="return date",
                    missing="not returned yet",
                    present="already returned",
                ),
                reference("reader_id", "readers", "made by"),
                reference("book_id", "books", "of"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT title FROM books WHERE subject = 'history'",
            ("List the titles of all history books.", "What are the titles of the books about history?"),
        ),
        Query(
            "count",
            "SELECT COUNT(*) FROM readers WHERE age < 18",
            ("How many readers are younger than 18?", "Count the readers below the age of 18."),
        ),
        Query(
            "order_limit",
            "SELECT title FROM books WHERE subject = 'crime' ORDER BY pages DESC LIMIT 1",
            (
                "What is the title of the longest crime book?",
                "Show the title of the book about crime with the most pages.",
            ),
        ),
        Query(
            "join",
            "SELECT readers.name, books.title FROM loans JOIN readers ON loans.reader_id = readers.reader_id "
            "JOIN books ON loans.book_id = books.book_id WHERE loans.returned_on IS NULL",
            (
                "Show the reader's name and the book's title for every loan that was not returned yet.",
                "Who still has which book? Give the reader's name and the title for each unreturned loan.",
            ),
        ),
        Query(
            "join_group",
            "SELECT books.subject, COUNT(*) FROM loans JOIN books ON loans.book_id = books.book_id "
            "GROUP BY books.subject ORDER BY COUNT(*) DESC LIMIT 1",
            (
                "Which subject is lent most often? Show the subject and the number of loans.",
                "Show the book subject with the most loans and how many loans it has.",
            ),
        ),
        Query(
            "join_group",
            "SELECT readers.name, COUNT(*) FROM loans JOIN readers ON loans.reader_id = readers.reader_id "
            "GROUP BY readers.name HAVING COUNT(*) >= 3",
            (
                "Which readers have made at least 3 loans? Show the name and the number of loans.",
                "Show the name and number of loans of every reader with 3 loans or more.",
            ),
        ),
        Query(
            "set_operation",
            "SELECT book_id FROM books EXCEPT SELECT book_id FROM loans",
            ("List the book ids that were never lent.", "Which book ids do not occur in any loan?"),
        ),
        Query(
            "subquery",
            "SELECT name FROM readers WHERE age > (SELECT AVG(age) FROM readers WHERE street = 'Mill Lane')",
            (
                "Which readers are older than the average reader from Mill Lane? Show their names.",
                "List the names of readers with an age above the average age in Mill Lane.",
            ),
        ),
    ),
)
