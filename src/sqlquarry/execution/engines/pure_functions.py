"""SQL functions that only compute, without files, network, locks, sequences, waits or settings.

The engine for servers that do not report which functions a query calls refuses all functions that are not listed here.
There are two lists, because sqlglot has a type for each function that it supports and keeps only the name of others.
"""

from __future__ import annotations

# All types of sqlglot 30.30 except those that read files (ReadCSV), call models or other hosts (AIGenerate, Host),
# change something (NextValueFor) or take names of tables as values (DynamicIdentifier). AnonymousAggFunc is one
# of the aggregates of ClickHouse that sqlglot lists.
_TYPES = """
    Abs Acos Acosh AddMonths And AnonymousAggFunc AnyValue ApproxDistinct ApproxPercentileAccumulate
    ApproxPercentileCombine ApproxPercentileEstimate ApproxQuantile ApproxQuantiles ApproxTopK
    ApproxTopKAccumulate ApproxTopKCombine ApproxTopKEstimate ApproxTopSum ApproximateSimilarity ArgMax ArgMin
    Array ArrayAgg ArrayAll ArrayAny ArrayAppend ArrayCompact ArrayConcat ArrayConcatAgg ArrayConstructCompact
    ArrayContainedBy ArrayContains ArrayContainsAll ArrayDistinct ArrayExcept ArrayFilter ArrayFirst ArrayInsert
    ArrayIntersect ArrayLast ArrayMax ArrayMin ArrayOverlaps ArrayPosition ArrayPrepend ArrayRemove ArrayRemoveAt
    ArrayReverse ArraySize ArraySlice ArraySort ArraySum ArrayToString ArrayUnionAgg ArrayUniqueAgg ArraysZip
    Ascii Asin Asinh Atan Atan2 Atanh Avg Base64DecodeBinary Base64DecodeString Base64Encode BitLength
    BitmapBitPosition BitmapBucketNumber BitmapConstructAgg BitmapCount BitmapOrAgg BitwiseAndAgg BitwiseCount
    BitwiseOrAgg BitwiseXorAgg Booland Boolnot Boolor BoolxorAgg ByteLength Case Cast CastToStrType Cbrt Ceil
    CheckJson CheckXml Chr CityHash64 Coalesce CodePointsToBytes CodePointsToString Collate Collation
    CombinedAggFunc CombinedParameterizedAgg Compress Concat ConcatWs ConnectByRoot Contains Convert
    ConvertTimezone ConvertToCharset Corr Cos Cosh CosineDistance Cot Coth Count CountIf CovarPop CovarSamp Csc
    Csch CumeDist CurrentAccount CurrentAccountName CurrentAvailableRoles CurrentCatalog CurrentClient
    CurrentDatabase CurrentDate CurrentDatetime CurrentIpAddress CurrentOrganizationName CurrentOrganizationUser
    CurrentRegion CurrentRole CurrentRoleType CurrentSchema CurrentSchemas CurrentSecondaryRoles CurrentSession
    CurrentTime CurrentTimestamp CurrentTimestampLTZ CurrentTimezone CurrentUser CurrentUserId CurrentVersion
    CurrentWarehouse Date DateAdd DateBin DateDiff DateFromParts DateFromUnixDate DateStrToDate DateSub
    DateToDateStr DateToDi DateTrunc Datetime DatetimeAdd DatetimeDiff DatetimeSub DatetimeTrunc Day DayOfMonth
    DayOfWeek DayOfWeekIso DayOfYear Dayname Decode DecodeCase DecompressBinary DecompressString Decrypt
    DecryptRaw Degrees DenseRank DiToDate DotProduct Elt Encode Encrypt EncryptRaw EndsWith EqualNull
    EuclideanDistance Exists Exp Explode ExplodingGenerateSeries Extract Factorial FarmFingerprint First
    FirstValue Flatten Float64 Floor Format FromBase FromBase32 FromBase64 FromISO8601Date FromISO8601Timestamp
    FromISO8601TimestampNanos FromJson GapFill GenerateDateArray GenerateSeries GenerateTimestampArray Generator
    GetExtract GetIgnoreCase Getbit Greatest GroupConcat Grouping GroupingId HashAgg Hex HexDecodeString Hll Hour
    If Initcap Inline Int64 IsArray IsAscii IsInf IsNan IsNullValue JSONArray JSONArrayAgg JSONArrayAppend
    JSONArrayContains JSONArrayInsert JSONBContains JSONBContainsAllTopKeys JSONBContainsAnyTopKeys
    JSONBContainsTopKey JSONBDeleteAtPath JSONBExists JSONBExtract JSONBExtractScalar JSONBObjectAgg
    JSONBPathExists JSONBool JSONCast JSONExists JSONExtract JSONExtractArray JSONExtractScalar JSONFormat
    JSONKeys JSONKeysAtDepth JSONObject JSONObjectAgg JSONRemove JSONSet JSONStripNulls JSONTable JSONType
    JSONValueArray JarowinklerSimilarity JustifyDays JustifyHours JustifyInterval Kurtosis Lag Last LastDay
    LastValue LaxBool LaxFloat64 LaxInt64 LaxString Lead Least Left Length Levenshtein List Ln Localtime
    Localtimestamp Log LogicalAnd LogicalOr Lower LowerHex MD5 MD5Digest MD5NumberLower64 MD5NumberUpper64
    MakeInterval ManhattanDistance Map MapCat MapContainsKey MapDelete MapFromEntries MapInsert MapKeys MapPick
    MapSize MatchAgainst Max Median Min Minhash MinhashCombine Minute Mode Month Monthname MonthsBetween Nanvl
    Negative NextDay Normal Normalize NthValue Ntile Nullif NumberToStr Nvl2 ObjectAgg ObjectId ObjectInsert
    ObjectTransform OpenJSON Or Overlay Pad ParameterizedAgg ParseBignumeric ParseDatetime ParseIp ParseJSON
    ParseNumeric ParseTime ParseUrl PercentRank PercentileCont PercentileDisc Pi Posexplode PosexplodeOuter Pow
    PreviousDay Quantile Quarter Radians Rand Randn Randstr RangeBucket RangeN Rank Reduce RegexpCount
    RegexpExtract RegexpExtractAll RegexpFullMatch RegexpILike RegexpInstr RegexpLike RegexpReplace RegexpSplit
    RegexpSubstr RegrAvgx RegrAvgy RegrCount RegrIntercept RegrR2 RegrSlope RegrSxx RegrSxy RegrSyy RegrValx
    RegrValy Repeat Replace Reverse Right Rint Round RowNumber RtrimmedLength SHA SHA1Digest SHA2 SHA2Digest
    SafeAdd SafeConvertBytesToString SafeDivide SafeMultiply SafeNegate SafeSubtract Search SearchIp Sec Sech
    Second Seq1 Seq2 Seq4 Seq8 SessionUser Shuffle Sign Sin Sinh Skewness Soundex SoundexP123 Space Split
    SplitPart SplitToTable Sqrt StDistance StPoint Stack StandardHash StarMap StartsWith Stddev StddevPop
    StddevSamp StrPosition StrToDate StrToMap StrToTime StrToUnix String StringToArray StripNullValue Strtok
    StrtokSplitToTable StrtokToArray Struct StructExtract Stuff Substring SubstringIndex Sum Systimestamp Tan Tanh
    Time TimeAdd TimeDiff TimeFromParts TimeSlice TimeStrToDate TimeStrToTime TimeStrToUnix TimeSub TimeToStr
    TimeToTimeStr TimeToUnix TimeTrunc Timestamp TimestampAdd TimestampDiff TimestampFromParts
    TimestampLtzFromParts TimestampSub TimestampTrunc TimestampTzFromParts ToArray ToBase32 ToBase64 ToBinary
    ToBoolean ToChar ToCodePoints ToDays ToDecfloat ToDouble ToMap ToNumber ToVariant Transform Translate Trim
    Trunc Try TryBase64DecodeBinary TryBase64DecodeString TryCast TryHexDecodeBinary TryHexDecodeString
    TryToDecfloat TsOrDiToDi TsOrDsAdd TsOrDsDiff TsOrDsToDate TsOrDsToDateStr TsOrDsToDatetime TsOrDsToTime
    TsOrDsToTimestamp Typeof Unhex Unicode Uniform UnixDate UnixMicros UnixMillis UnixSeconds UnixToStr UnixToTime
    UnixToTimeStr Unnest Upper UtcDate UtcTime UtcTimestamp Uuid VarMap Variance VariancePop Week WeekOfYear
    WeekStart WeightString WidthBucket XMLElement XMLGet XMLTable Xor Year YearOfWeek YearOfWeekIso Zipf
    _ExplodeOuter
"""
PURE_TYPES = frozenset(_TYPES.split())
_BY_DIALECT = {
    "mysql": """
        adddate addtime any_value bin bin_to_uuid bit_count char conv convert_tz crc32 datetime exp export_set
        field find_in_set format from_days inet6_aton inet6_ntoa inet_aton inet_ntoa insert instr interval
        is_ipv4 is_ipv6 is_uuid json_contains json_contains_path json_depth json_length json_merge_patch
        json_merge_preserve json_overlaps json_pretty json_quote json_search json_unquote json_valid json_value
        locate make_set makedate maketime microsecond mid oct ord period_add period_diff quote row sec_to_time
        std subdate subtime time_format time_to_sec timediff to_seconds truncate uuid_to_bin weekday yearweek
    """,
    "tsql": """
        binary_checksum checksum checksum_agg choose count_big datalength datename datepart datetime2fromparts
        datetimefromparts datetimeoffsetfromparts db_name difference getutcdate grouping_id hashbytes isdate
        isjson isnumeric json_modify json_query json_value nchar newid object_name parse patindex quotename
        replicate schema_name smalldatetimefromparts square stdev stdevp str string_escape string_split
        switchoffset sysdatetime sysutcdatetime todatetimeoffset try_convert try_parse var varp
    """,
    "oracle": """
        bitand dump hextoraw lnnvl new_time nls_initcap nls_lower nls_upper nlssort numtodsinterval
        numtoyminterval ora_hash ratio_to_report rawtohex regexp_count remainder sys_extract_utc to_date
        to_dsinterval to_timestamp to_timestamp_tz to_yminterval trunc tz_offset vsize
    """,
    "redshift": """
        btrim charindex date_cmp date_part_year fnv_hash func_sha1 is_valid_json is_valid_json_array
        json_array_length json_extract_array_element_text json_extract_path_text json_parse json_serialize
        ratio_to_report strtol timestamp_cmp to_date trunc
    """,
    "snowflake": """
        array_size as_array as_boolean as_date as_double as_integer as_object as_varchar charindex editdistance
        get_path hash is_array is_boolean is_date is_decimal is_double is_integer is_object is_varchar
        object_construct object_construct_keep_null object_delete object_keys object_pick ratio_to_report
        to_object to_time try_to_boolean try_to_date try_to_decimal try_to_double try_to_number try_to_time
        try_to_timestamp
    """,
    "clickhouse": """
        adddays addhours addmonths addweeks addyears age arraycount arraydistinct arrayelement arrayexists
        arrayfilter arraymap arraysort arraysum datename empty formatdatetime has hasall hasany intdiv
        intdivorzero jsonextractbool jsonextractfloat jsonextractint jsonextractraw jsonextractstring
        jsonextractuint jsonhas jsonlength multiif notempty parsedatetimebesteffort position
        positioncaseinsensitive splitbychar splitbystring subtractdays subtractmonths subtractyears toboolean
        todate todate32 todatetime todatetime64 todayofmonth todayofweek todayofyear todecimal32 todecimal64
        tofloat32 tofloat64 tohour toint16 toint32 toint64 toint8 tominute tomonth tonullable toquarter tosecond
        tostartofday tostartofhour tostartofminute tostartofmonth tostartofquarter tostartofweek tostartofyear
        tostring touint16 touint32 touint64 touint8 tounixtimestamp toweek toyear toyyyymm toyyyymmdd tuple
        tupleelement yesterday
    """,
    "trino": """
        all_match any_match array_frequency array_sort at_timezone bitwise_and bitwise_not bitwise_or
        bitwise_xor char2hexint codepoint concat_ws cosine_similarity date_parse day_of_month day_of_week
        day_of_year element_at every format_datetime from_base from_iso8601_date from_iso8601_timestamp
        geometric_mean hamming_distance histogram human_readable_seconds infinity is_finite is_infinite is_nan
        json_array_contains json_array_get json_array_length json_extract json_query json_size json_value
        levenshtein_distance map_agg map_concat map_entries map_filter map_union millisecond multimap_agg nan
        ngrams none_match numeric_histogram parse_datetime parse_duration row split_to_map strpos to_iso8601
        to_milliseconds transform_keys transform_values truncate typeof url_decode url_encode
        url_extract_fragment url_extract_host url_extract_parameter url_extract_path url_extract_port
        url_extract_protocol url_extract_query with_timezone word_stem year_of_week zip zip_with
    """,
    "bigquery": """
        array_is_distinct bit_and bit_or bit_xor bool div error format_date format_datetime format_timestamp
        ieee_divide is_inf is_nan json_query json_query_array json_value normalize_and_casefold safe_add
        timestamp_micros timestamp_millis timestamp_seconds
    """,
    "spark": """
        any bool_and bool_or date_part elt every find_in_set format_number format_string from_csv
        get_json_object map_agg months nvl percentile percentile_approx pmod positive sequence shiftleft
        shiftright some stack to_csv to_json typeof unix_date unix_timestamp weekday zip_with
    """,
}
PURE_NAMES = {dialect: frozenset(names.split()) for dialect, names in _BY_DIALECT.items()}
PURE_NAMES["presto"] = PURE_NAMES["athena"] = PURE_NAMES["trino"]
PURE_NAMES["databricks"] = PURE_NAMES["spark2"] = PURE_NAMES["hive"] = PURE_NAMES["spark"]
