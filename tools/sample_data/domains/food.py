"""A wholesale bakery and a vineyard."""

from tools.sample_data.lexicon import (
    Domain,
    Query,
    Table,
    category,
    date,
    key,
    later,
    number,
    optional,
    pairs,
    reference,
)

BAKERY = Domain(
    "bakery",
    (
        Table(
            "products",
            "product",
            28,
            (
                key("product_id"),
                pairs("name", "Rye Butter Almond Poppy Honey Walnut", "Loaf Roll Twist Crown Bun"),
                category("line", ("bread", "pastry", "cake", "snack"), noun="product line", where="in the {} line"),
                number("unit_price", 0.4, 9.8, 0.1, most="most expensive", least="cheapest"),
                number("shelf_days", 1, 30, counted="shelf days"),
            ),
        ),
        Table(
            "orders",
            "order",
            60,
            (
                key("order_id"),
                category(
                    "shop", ("Market Hall", "Corner Cafe", "Grand Hotel", "School Kitchen"), where="from the shop {}"
                ),
                number("quantity", 10, 400, 2, plural="quantities", additive=True, most="largest", least="smallest"),
                date("ordered_on", "2023-01-02", "2024-09-30", noun="order date", where="placed"),
                later(
                    "delivered_on",
                    "ordered_on",
                    (1, 6),
                    noun="delivery date",
                    missing="not delivered yet",
                    present="already delivered",
                ),
                reference("product_id", "products", "for"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT name, shelf_days FROM products WHERE line = 'bread'",
            (
                "Show the name and shelf days of every bread product.",
                "How many shelf days does each product of the bread line have? Give the name and the shelf days.",
            ),
        ),
        Query(
            "multi_filter",
            "SELECT order_id FROM orders WHERE shop = 'Grand Hotel' AND quantity >= 200",
            (
                "List the order ids of orders from Grand Hotel for 200 pieces or more.",
                "Which orders of the Grand Hotel have a quantity of at least 200? Show their order ids.",
            ),
        ),
        Query(
            "aggregate",
            "SELECT SUM(quantity) FROM orders WHERE shop = 'Corner Cafe'",
            (
                "How many pieces did the Corner Cafe order in total?",
                "What is the total quantity over all orders from the shop Corner Cafe?",
            ),
        ),
        Query(
            "join",
            "SELECT DISTINCT products.name FROM orders JOIN products ON orders.product_id = products.product_id "
            "WHERE orders.shop = 'Market Hall'",
            (
                "Which different products has Market Hall ordered? Show their names.",
                "List the name of every product ordered by the shop Market Hall, each name once.",
            ),
        ),
        Query(
            "join_group",
            "SELECT orders.shop, SUM(orders.quantity * products.unit_price) FROM orders JOIN products "
            "ON orders.product_id = products.product_id GROUP BY orders.shop",
            (
                "What is the total value of the orders, quantity times unit price, for each shop?",
                "Show each shop and the sum of quantity multiplied by unit price over its orders.",
            ),
        ),
        Query(
            "group",
            "SELECT line, COUNT(*), AVG(unit_price) FROM products GROUP BY line",
            (
                "Show each product line with its number of products and their average unit price.",
                "For each product line, give the number of products and the average unit price.",
            ),
        ),
        Query(
            "date",
            "SELECT COUNT(*) FROM orders WHERE ordered_on BETWEEN '2024-03-01' AND '2024-03-31'",
            ("How many orders were placed in March 2024?", "Count the orders with an order date in March 2024."),
        ),
        Query(
            "subquery",
            "SELECT name FROM products WHERE product_id IN (SELECT product_id FROM orders WHERE delivered_on IS NULL)",
            (
                "List the names of products with an order that was not delivered yet.",
                "Which products still have undelivered orders? Show their names.",
            ),
        ),
    ),
)

VINEYARD = Domain(
    "vineyard",
    (
        Table(
            "plots",
            "plot",
            24,
            (
                key("plot_id"),
                pairs("name", "Upper Lower East West Old", "Terrace Slope Field Ridge Corner"),
                category("soil", ("clay", "slate", "chalk", "gravel"), where="on {} soil"),
                number(
                    "area_ha", 0.3, 7.5, 0.1, noun="area", unit="ha", additive=True, most="largest", least="smallest"
                ),
                date("planted_on", "1985-03-01", "2018-04-30", noun="planting date", where="planted"),
            ),
        ),
        Table(
            "wines",
            "wine",
            48,
            (
                key("wine_id"),
                pairs(
                    "label",
                    "Blue Golden Quiet Wild Amber Stone Lunar",
                    "Heron Fox Lantern Meadow Bell Anchor Thistle",
                ),
                category("color", ("red", "white", "rose", "orange")),
                category("vintage", (2019, 2020, 2021, 2022, 2018), where="of the vintage {}"),
                number("bottles", 300, 9000, 50, counted="bottles", additive=True),
                optional("award", ("bronze", "silver", "gold")),
                reference("plot_id", "plots", "grown on"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT label FROM wines WHERE color = 'red'",
            ("List the labels of all red wines.", "What are the labels of the red wines?"),
        ),
        Query(
            "multi_filter",
            "SELECT label, bottles FROM wines WHERE color = 'white' AND vintage = 2020",
            (
                "Show the label and number of bottles of every white wine from 2020.",
                "List the labels and numbers of bottles of white wines of the vintage 2020.",
            ),
        ),
        Query(
            "count",
            "SELECT COUNT(*) FROM wines WHERE award = 'gold'",
            ("How many wines have won gold?", "Count the wines with a gold award."),
        ),
        Query(
            "aggregate",
            "SELECT SUM(bottles) FROM wines WHERE award IS NOT NULL",
            (
                "How many bottles do the wines with an award have together?",
                "What is the total number of bottles of all wines that have won an award?",
            ),
        ),
        Query(
            "group",
            "SELECT color, vintage, COUNT(*) FROM wines GROUP BY color, vintage",
            (
                "How many wines are there for each color and vintage?",
                "Show each combination of color and vintage and its number of wines.",
            ),
        ),
        Query(
            "having",
            "SELECT vintage FROM wines GROUP BY vintage HAVING SUM(bottles) > 40000",
            (
                "Which vintages have more than 40000 bottles in total?",
                "List the vintages whose wines add up to more than 40000 bottles.",
            ),
        ),
        Query(
            "join",
            "SELECT wines.label, plots.soil FROM wines JOIN plots ON wines.plot_id = plots.plot_id "
            "WHERE wines.award IS NOT NULL",
            (
                "Show the label and the soil of the plot for every wine with an award.",
                "For each wine that won an award, give the label and the soil that it grew on.",
            ),
        ),
        Query(
            "date",
            "SELECT name FROM plots WHERE planted_on < '2000-01-01' ORDER BY planted_on",
            (
                "List the names of the plots planted before the year 2000, the oldest first.",
                "Which plots were planted before 2000-01-01? Show their names in order of the planting date.",
            ),
        ),
    ),
)
